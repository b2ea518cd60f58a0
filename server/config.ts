// The server's own settings: loaded once from flat files, environment and command line, with every problem told at once.

import { homedir, hostname } from 'node:os'
import { join, resolve } from 'node:path'

import { KitError } from '#lib/errors.ts'
import type { ExplainedValue } from '#machine/ports.ts'

import { checkTogether } from './config-checks.ts'
import type { ConfigRule, HostFacts } from './config-rule.ts'
import { type ConfigProblem, type ConfigSources, gatherTexts, type SetText } from './config-sources.ts'
import { CONFIG_KEYS, CONFIG_TABLE, type ConfigKey, type ConfigValues, variableOf } from './config-table.ts'

export interface LoadOptions {
  /** Where the flat files lie; else `KATESKIT_CONFIG`, else `config`. */
  readonly directory?: string
  readonly env: Readonly<Record<string, string | undefined>>
  /** From the command line: above everything else. */
  readonly overrides?: Readonly<Partial<Record<ConfigKey, string>>>
  /** What relative paths are relative to; else the working directory, which `kateskit` makes the project's root. */
  readonly cwd?: string
}

export interface Config {
  /** Paths are absolute. */
  readonly values: ConfigValues
  /** One line per setting, in the order of the table. */
  explain(): readonly ExplainedValue[]
  /** Every flat file that counts, whether it is there or not, and the directory they lie in by default. */
  readonly files: readonly string[]
  readonly directory: string
}

/** Everything that is wrong with the configuration, in one error. */
export class ConfigError extends KitError {
  readonly problems: readonly ConfigProblem[]

  constructor(problems: readonly ConfigProblem[]) {
    const lines = problems.map(({ source, message }) => `\n  ${source}: ${message}`)
    const count = problems.length === 1 ? '1 problem' : `${problems.length} problems`
    super('invalid-input', `Cannot use the configuration: ${count}${lines.join('')}`)
    this.name = 'ConfigError'
    this.problems = problems
  }
}

/** Throws ConfigError with all problems. */
export function loadConfig(options: LoadOptions): Config {
  const sources = sourcesOf(options)
  const host = hostFacts(sources)
  const { texts, problems: readProblems, files } = gatherTexts(sources)
  const problems = [...readProblems]
  const unreadable = new Set(readProblems.map(({ key }) => key))
  const values: Partial<Record<ConfigKey, unknown>> = {}
  const explained: ExplainedValue[] = []

  for (const key of CONFIG_KEYS) {
    if (unreadable.has(key)) continue
    const rule: ConfigRule<unknown> = CONFIG_TABLE[key]
    const set = texts.get(key) ?? fallbackOf(rule, host)
    const parsed = rule.shape.safeParse(set.text)
    if (!parsed.success) {
      problems.push({ source: set.source, key, message: unusable(key, set, rule.expected) })
      continue
    }
    const isPath = rule.isPath === true && typeof parsed.data === 'string'
    values[key] = isPath ? expandPath(set.text, sources) : parsed.data
    explained.push({ key, value: isPath ? expandPath(set.text, sources) : set.text, source: set.source })
  }

  // The table's types tie each key to its shape; what could not be parsed has left a problem.
  const complete = values as ConfigValues
  for (const { key, message } of checkTogether(complete)) {
    const source = texts.get(key)?.source ?? `${join(sources.directory, key)} or ${variableOf(key)}`
    problems.push({ source, key, message })
  }
  if (problems.length > 0) throw new ConfigError(problems)
  return { values: Object.freeze(complete), explain: () => explained, files, directory: sources.directory }
}

function sourcesOf({ directory, env, overrides = {}, cwd = '.' }: LoadOptions): ConfigSources {
  const named = env['KATESKIT_CONFIG']
  return {
    directory: resolve(cwd, directory ?? named ?? 'config'),
    directoryIsNamed: directory === undefined && named !== undefined,
    cwd: resolve(cwd),
    env,
    overrides,
  }
}

function hostFacts({ env }: ConfigSources): HostFacts {
  const home = env['HOME'] ?? homedir()
  // The XDG base directory specification: empty counts as unset.
  return { hostname: hostname(), cacheDirectory: env['XDG_CACHE_HOME'] || join(home, '.cache') }
}

function fallbackOf(rule: ConfigRule<unknown>, host: HostFacts): SetText {
  const text = typeof rule.fallback === 'string' ? rule.fallback : rule.fallback(host)
  return { text, source: 'default' }
}

function unusable(key: ConfigKey, { text }: SetText, expected: string): string {
  const shown = text === '' ? 'empty' : JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text)
  return `Cannot use ${key}: ${shown}; it must be ${expected}`
}

function expandPath(path: string, { cwd, env }: ConfigSources): string {
  if (path === '~' || path.startsWith('~/')) return join(env['HOME'] ?? homedir(), path.slice(1))
  return resolve(cwd, path)
}
