// How commands ask a running server and show what it answers.

import type { JsonHttp } from '#lib/json-http.ts'

import { type CliIo, printJson, printLines } from './cli-io.ts'

/** Connects when a command runs, not when it is declared. Throws KitError `unavailable`. */
export type Server = () => Promise<JsonHttp>

export interface AnswerOptions {
  readonly json?: boolean
}

export const JSON_OPTION = ['--json', 'print JSON instead of a table'] as const

export function show(
  io: CliIo,
  options: AnswerOptions,
  answer: unknown,
  lines: () => readonly string[],
): void {
  if (options.json === true) printJson(io.stdout, answer)
  else printLines(io.stdout, lines())
}
