// `kateskit setup`: the set-up that every other command that needs one runs too.

import { systemClock } from '#lib/clock.ts'
import type { Purpose } from '#setup/packages.ts'
import { createProgress } from '#setup/progress.ts'
import { prepare } from '#setup/setup.ts'

import type { CliIo } from './cli-io.ts'

export async function prepareFor(io: CliIo, purpose: Purpose): Promise<void> {
  await prepare({
    purpose,
    projectFolder: io.projectFolder,
    env: io.env,
    progress: createProgress(io.stderr, systemClock),
    signal: io.signal,
    userId: io.userId,
  })
}
