// `kateskit start`, which is `npm start`: a LAN when one is configured, else the lab.

import { KitError } from '#lib/errors.ts'

import { findServedNetwork } from '../served-network.ts'
import type { CliIo } from './cli-io.ts'
import { type LabCommandOptions, runLab } from './lab-command.ts'
import { loadServeConfig, runServe, type ServeCommandOptions } from './serve-command.ts'
import { importsOf, prepareFor } from './setup-command.ts'

export async function runStart(io: CliIo, options: LabCommandOptions & ServeCommandOptions): Promise<void> {
  const config = loadServeConfig(io, options)
  const name = config.values['dhcp/interface']
  if (name === undefined) {
    await runLab(io, options)
    return
  }
  if (options.until !== undefined || options.json === true) {
    throw new KitError(
      'invalid-input',
      `Cannot use --until or --json while serving ${name}: they are for the lab`,
      {
        fix: 'kateskit lab runs one beside it',
      },
    )
  }
  const prepared = await prepareFor(io, 'serve', {
    config,
    preflight: async () => void (await findServedNetwork(config)),
  })
  await runServe(io, { ...options, imports: importsOf(config, prepared) })
}
