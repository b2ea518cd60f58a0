// `kateskit serve`: the server, on a network that somebody named.

import type { App } from '#app'
import { type Config, loadConfig } from '#config'
import { systemClock } from '#lib/clock.ts'

import type { ConfigKey } from '../config-table.ts'
import { type CliIo, printLines, untilAborted } from './cli-io.ts'
import { checkServe } from './serve-preflight.ts'
import { VERSION } from './version.ts'

export interface ServeCommandOptions {
  readonly interface?: string
  readonly mode?: string
  readonly port?: string
  readonly imports?: Readonly<Record<'images/import' | 'registry/import', string>>
}

/**
 * Resolves when it was asked to end and has. The server itself is loaded here and not above: every other command
 * does without it, and starts in a third of the time.
 */
export async function runServe(io: CliIo, options: ServeCommandOptions): Promise<void> {
  const load = () => loadServeConfig(io, options)
  const config = load()
  await checkServe(config, { userId: io.userId })
  const [{ createApp }, { createAppLog }, { watchConfig }] = await Promise.all([
    import('#app'),
    import('../app-log.ts'),
    import('../config-watch.ts'),
  ])
  const log = createAppLog({ level: config.values['log/level'], format: config.values['log/format'] })
  const app = await createApp({ config, version: VERSION, clock: systemClock, log })
  const watch = watchConfig({
    config,
    load,
    clock: systemClock,
    log,
    onChange(change) {
      if (change.live.includes('log/level')) log.setLevel(change.config.values['log/level'])
      if (change.needRestart.length > 0) {
        log.warn({ settings: change.needRestart }, 'Settings have changed that count after a restart')
      }
    },
    onBroken: (error) => log.error({}, error.message),
  })
  try {
    await app.start()
    await watch.start()
    printLines(io.stdout, await welcome(app, io.stdout))
    await untilAborted(io.signal)
  } finally {
    await watch.stop()
    await app.stop()
  }
}

/** Throws ConfigError with all problems. */
export function loadServeConfig(io: CliIo, options: ServeCommandOptions): Config {
  const overrides: Partial<Record<ConfigKey, string>> = {
    ...(options.interface !== undefined && { 'dhcp/interface': options.interface }),
    ...(options.mode !== undefined && { 'dhcp/mode': options.mode }),
    ...(options.port !== undefined && { 'http/port': options.port }),
    ...options.imports,
  }
  return loadConfig({ env: io.env, cwd: io.projectFolder, overrides })
}

/** The first admin token is made where a person can read it, and never where a log would keep it. */
async function welcome(app: App, stdout: CliIo['stdout']): Promise<readonly string[]> {
  const serves = `KatesKit ${VERSION} serves ${app.networkInterface}; the API is at ${app.apiUrl}`
  const next = [
    'Let a machine boot from the network, and see it:  ./bin/kateskit machines',
    'What happens, as it happens:                      ./bin/kateskit events --follow',
  ]
  const hasTokens = await app.hasTokens()
  if (stdout.isTTY !== true) {
    return hasTokens ? [serves] : [serves, 'No API token exists yet; kateskit token new <name> makes one.']
  }
  if (hasTokens) return [serves, ...next]
  const secret = await app.makeFirstToken()
  return [
    ...[serves, '', `Admin token, shown this once: ${secret}`],
    ...['kateskit token new <name> makes others; --role says what they may.', '', ...next],
  ]
}
