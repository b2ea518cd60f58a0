// Asking a person at the terminal before something is lost.

import { createInterface } from 'node:readline'

import type { CliIo } from './cli-io.ts'

/** Resolves with true for yes; anything else is no, the end of the input too. Throws when it is interrupted. */
export async function askYesNo(io: CliIo, question: string): Promise<boolean> {
  io.signal.throwIfAborted()
  io.stderr.write(`${question} [y/N] `)
  const lines = createInterface({ input: io.stdin, crlfDelay: Number.POSITIVE_INFINITY })
  const answered = new Promise<string>((resolve) => {
    lines.once('line', resolve)
    lines.once('close', () => resolve(''))
    io.signal.addEventListener('abort', () => lines.close(), { once: true })
  })
  const answer = await answered
  lines.close()
  io.signal.throwIfAborted()
  return /^y(?:es)?$/i.test(answer.trim())
}
