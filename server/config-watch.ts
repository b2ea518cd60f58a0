// Noticing that the server's own settings changed on disk, and telling which of them need a restart.

import { relative } from 'node:path'

import type { Clock } from '#lib/clock.ts'
import type { Log } from '#lib/log.ts'
import type { Service } from '#lib/service.ts'
import { type FileWatch, watchFiles } from '#profiles/watch-files.ts'

import { type Config, ConfigError } from './config.ts'
import type { ConfigRule } from './config-rule.ts'
import { CONFIG_TABLE, type ConfigKey } from './config-table.ts'

export interface ConfigChange {
  readonly config: Config
  /** Differ from what was in force a moment ago and can be applied now. */
  readonly live: readonly ConfigKey[]
  /** Differ from what the server runs with, and take a restart. */
  readonly needRestart: readonly ConfigKey[]
}

export interface ConfigWatchOptions {
  /** What the server runs with. */
  readonly config: Config
  /** Loads again from the same sources; throws ConfigError. */
  readonly load: () => Config
  readonly onChange: (change: ConfigChange) => void
  /** The files are in error; the server goes on with what it has. */
  readonly onBroken: (error: ConfigError) => void
  readonly clock: Clock
  readonly log: Log
}

export function watchConfig(options: ConfigWatchOptions): Service {
  const { config: running, load, onChange, onBroken, clock, log } = options
  let current = running
  let watch: FileWatch | undefined

  const reload = () => {
    try {
      const next = load()
      const changed = differing(current, next)
      current = next
      if (changed.length === 0) return
      const needRestart = differing(running, next).filter((key) => !isLive(key))
      onChange({ config: next, live: changed.filter(isLive), needRestart })
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error
      onBroken(error)
    }
  }

  return {
    name: 'config-watch',
    async start() {
      const outside = running.files.filter((file) => relative(running.directory, file).startsWith('..'))
      watch = watchFiles({
        roots: [running.directory, ...outside],
        clock,
        onChange: reload,
        onError: (error) => log.warn({ err: error }, `Cannot watch ${running.directory} for changes`),
      })
      await watch.ready
    },
    async stop() {
      await watch?.stop()
    },
  }
}

const isLive = (key: ConfigKey) => (CONFIG_TABLE[key] as ConfigRule<unknown>).isLive === true

function differing(before: Config, after: Config): readonly ConfigKey[] {
  const texts = new Map(before.explain().map(({ key, value }) => [key, value]))
  return after
    .explain()
    .filter(({ key, value }) => texts.get(key) !== value)
    .map(({ key }) => key as ConfigKey)
}
