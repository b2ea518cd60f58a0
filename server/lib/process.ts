// Other programs, run to their end.

import { spawn } from 'node:child_process'
import type { Readable } from 'node:stream'

import { describeError, KitError, systemErrorCode } from './errors.ts'

export interface CommandOptions {
  readonly cwd?: string
  /** Absent: this process's own. */
  readonly env?: NodeJS.ProcessEnv
  readonly input?: string
}

export interface CommandResult {
  /** Undefined when a signal ended it. */
  readonly exitCode: number | undefined
  readonly stdout: string
  readonly stderr: string
}

/** Throws KitError `unavailable` only when the program cannot be started; how it ended is in the result. */
export async function runCommand(
  command: string,
  args: readonly string[],
  options: CommandOptions = {},
): Promise<CommandResult> {
  const child = spawn(command, [...args], { cwd: options.cwd, env: options.env, stdio: 'pipe' })
  const stdout: Buffer[] = []
  const stderr: Buffer[] = []
  child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk))
  child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk))
  child.stdin.on('error', () => {}) // a program may end before it has read its input
  child.stdin.end(options.input ?? '')
  const exitCode = await new Promise<number | undefined>((resolve, reject) => {
    child.once('error', (error) => reject(cannotStart(command, error)))
    child.once('close', (code) => resolve(code ?? undefined))
  })
  return {
    exitCode,
    stdout: Buffer.concat(stdout).toString(),
    stderr: Buffer.concat(stderr).toString(),
  }
}

/** Its standard output. Throws KitError `unavailable` with what it complained of when it fails. */
export async function commandOutput(
  command: string,
  args: readonly string[],
  options: CommandOptions = {},
): Promise<string> {
  const result = await runCommand(command, args, options)
  if (result.exitCode === 0) return result.stdout
  const complaint =
    result.stderr.trim().split('\n').at(-1) || `exit code ${result.exitCode ?? 'none (killed)'}`
  throw new KitError('unavailable', `Cannot run ${[command, ...args].join(' ')}: ${complaint}`)
}

/** Calls `listener` for each line, the last one also when nothing ends it. */
export function onLines(stream: Readable, listener: (line: string) => void): void {
  let rest = ''
  stream.setEncoding('utf8')
  stream.on('data', (chunk: string) => {
    const lines = (rest + chunk).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) listener(line)
  })
  stream.on('end', () => {
    if (rest !== '') listener(rest)
  })
}

/** What to say when `spawn` itself fails. */
export function cannotStart(command: string, error: unknown): KitError {
  const missing = systemErrorCode(error) === 'ENOENT'
  return new KitError(
    'unavailable',
    `Cannot start ${command}: ${missing ? 'it is not installed' : describeError(error)}`,
    { cause: error },
  )
}
