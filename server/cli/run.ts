// Runs one command line: what it prints when something is wrong, and the exit code.

import { CommanderError } from 'commander'

import { describeError, KitError } from '#lib/errors.ts'

import { type CliIo, Interrupted } from './cli-io.ts'
import { buildProgram } from './program.ts'

/** As `sysexits` and most tools have it: 1 it could not be done, 2 it was asked wrongly. */
const EXIT_OK = 0
const EXIT_FAILED = 1
const EXIT_USAGE = 2

/** Resolves with the exit code; never rejects. `args` are the words after the program's name. */
export async function runCommandLine(args: readonly string[], io: CliIo): Promise<number> {
  const program = buildProgram(io, args)
  try {
    await program.parseAsync([...args], { from: 'user' })
    return EXIT_OK
  } catch (error) {
    return explainFailure(error, io)
  }
}

function explainFailure(error: unknown, io: CliIo): number {
  if (io.signal.aborted && io.signal.reason instanceof Interrupted) return io.signal.reason.exitCode
  if (error instanceof CommanderError) {
    // Help and --version come this way too; commander has printed all there is to say.
    return error.exitCode === 0 ? EXIT_OK : EXIT_USAGE
  }
  io.stderr.write(`error: ${describeError(error)}\n`)
  if (error instanceof KitError && error.fix !== undefined) io.stderr.write(`  fix: ${error.fix}\n`)
  if (!(error instanceof KitError) && error instanceof Error) {
    io.stderr.write(`${error.stack?.split('\n').slice(1).join('\n')}\n`) // a mistake of ours: show where
  }
  return error instanceof KitError && error.code === 'invalid-input' ? EXIT_USAGE : EXIT_FAILED
}
