// The one entry: argv, environment and signals on the way in, the exit code on the way out.

import { fileURLToPath } from 'node:url'

import { type CliIo, Interrupted } from './cli/cli-io.ts'
import { runCommandLine } from './cli/run.ts'

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/** npm passes a terminal's Ctrl-C on to us, who had it already: two that come this close are one. */
const SAME_KEY_PRESS_MS = 500

/** The first one asks the command to end in order, a second one ends the process; its children die with it. */
function interruption(): AbortSignal {
  const controller = new AbortController()
  let firstMs = Number.POSITIVE_INFINITY
  for (const name of SIGNALS) {
    process.on(name, () => {
      const interrupted = new Interrupted(name)
      if (!controller.signal.aborted) {
        firstMs = performance.now()
        controller.abort(interrupted)
      } else if (performance.now() - firstMs > SAME_KEY_PRESS_MS) {
        process.exit(interrupted.exitCode)
      }
    })
  }
  return controller.signal
}

/** A reader that has seen enough (`kateskit events | head`) is no error. */
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  process.exit(error.code === 'EPIPE' ? 0 : 1)
})

const io: CliIo = {
  env: process.env,
  projectFolder: fileURLToPath(new URL('..', import.meta.url)),
  stdin: process.stdin,
  stdout: process.stdout,
  stderr: process.stderr,
  userId: process.geteuid?.() ?? 0,
  signal: interruption(),
}
process.exit(await runCommandLine(process.argv.slice(2), io))
