// A command line that keeps what it prints.

import { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'

import type { CliInput, CliIo } from '#cli/cli-io.ts'
import { runCommandLine } from '#cli/run.ts'

export const PROJECT = fileURLToPath(new URL('../..', import.meta.url))

export function cli(env: NodeJS.ProcessEnv = {}, options: Partial<Pick<CliIo, 'signal' | 'stdin'>> = {}) {
  const printed = { out: '', err: '' }
  const io: CliIo = {
    ...{ env, projectFolder: PROJECT, userId: 1000 },
    ...{ signal: new AbortController().signal, stdin: Readable.from([]), ...options },
    stdout: { write: (text) => (printed.out += text) },
    stderr: { write: (text) => (printed.err += text) },
  }
  /** What it printed before is forgotten. */
  const run = async (...args: string[]) => {
    Object.assign(printed, { out: '', err: '' })
    return { code: await runCommandLine(args, io), ...printed }
  }
  return { run, printed, io }
}

/** A terminal at which somebody types `text`. */
export function typing(text: string): CliInput {
  return Object.assign(Readable.from([text]), { isTTY: true })
}
