// `kateskit setup`: the set-up that every other command that needs one runs too.

import type { Config } from '#config'
import { systemClock } from '#lib/clock.ts'
import type { Purpose } from '#setup/packages.ts'
import { createProgress } from '#setup/progress.ts'
import { prepare } from '#setup/setup.ts'

import type { CliIo } from './cli-io.ts'

/** Resolves with the folder of this checkout's own base image where the purpose needs one. */
export async function prepareFor(
  io: CliIo,
  purpose: Purpose,
  preflight: () => Promise<void> = async () => {},
): Promise<string | undefined> {
  return prepare({
    purpose,
    preflight,
    projectFolder: io.projectFolder,
    env: io.env,
    progress: createProgress(io.stderr, systemClock),
    signal: io.signal,
    userId: io.userId,
  })
}

/** Setting images/import: what somebody has set counts for more than the image that was just made sure of. */
export function imageToImport(config: Config, own: string | undefined): string {
  const set = config.explain().find(({ key }) => key === 'images/import')
  return own === undefined || set?.source !== 'default' ? (config.values['images/import'] ?? '') : own
}
