// What a command may touch of the process it runs in; server/main.ts hands in the real one, tests their own.

export interface CliOutput {
  readonly isTTY?: boolean
  readonly columns?: number
  write(text: string): unknown
}

export interface CliInput extends NodeJS.ReadableStream {
  readonly isTTY?: boolean
  /** Terminals only. */
  setRawMode?(raw: boolean): unknown
}

export interface CliIo {
  readonly env: NodeJS.ProcessEnv
  /** Absolute: where profiles/, config/ and var/ lie. */
  readonly projectFolder: string
  /** What a person types; read by `console`, and by questions before something is lost. */
  readonly stdin: CliInput
  /** For what was asked for: tables, JSON. */
  readonly stdout: CliOutput
  /** For progress, notices and errors. */
  readonly stderr: CliOutput
  /** Effective user id. */
  readonly userId: number
  /** Aborts with an `Interrupted` when a person or the system asks the command to end. */
  readonly signal: AbortSignal
}

/** The reason `signal` aborts with. */
export class Interrupted extends Error {
  /** 128 + the signal's number, as shells have it. */
  readonly exitCode: number

  constructor(signalName: 'SIGINT' | 'SIGTERM' | 'SIGHUP') {
    super(`interrupted by ${signalName}`)
    this.name = 'Interrupted'
    this.exitCode = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 }[signalName]
  }
}

export function printLines(output: CliOutput, lines: readonly string[]): void {
  for (const line of lines) output.write(`${line}\n`)
}

/** One JSON value a line, for programs. */
export function printJson(output: CliOutput, value: unknown): void {
  output.write(`${JSON.stringify(value)}\n`)
}

/** Resolves when `signal` aborts, at once when it already has. */
export function untilAborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve()
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
}
