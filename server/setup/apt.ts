// Debian packages: which are missing, and installing them.

import { spawn } from 'node:child_process'
import type { Readable } from 'node:stream'

import { type ErrorCode, KitError } from '#lib/errors.ts'
import { cannotStart, onLines, runCommand } from '#lib/process.ts'

import type { Progress, StepProgress } from './progress.ts'

export interface AptOptions {
  readonly progress: Progress
  readonly env: NodeJS.ProcessEnv
  /** Aborting ends a download; packages that are being unpacked are finished. */
  readonly signal: AbortSignal
}

// biome-ignore lint/suspicious/noTemplateCurlyInString: dpkg-query's own placeholders
const DPKG_FORMAT = '${Package} ${db:Status-Status}\\n'

/** Of the given names, those that are not installed. Throws KitError where there is no dpkg. */
export async function missingPackages(names: readonly string[]): Promise<readonly string[]> {
  const { stdout } = await runCommand('dpkg-query', [
    ...['--show', '--showformat', DPKG_FORMAT, ...names],
  ]).catch((cause: unknown) => {
    throw new KitError('unavailable', 'Cannot look for Debian packages: this machine has no dpkg', {
      fix: 'use Debian 12, Debian 13 or Ubuntu',
      cause,
    })
  })
  return findMissing(names, stdout)
}

/** Exported for its tests: reads what dpkg-query prints, which leaves unknown packages out. */
export function findMissing(names: readonly string[], listing: string): readonly string[] {
  const installed = new Set(
    listing.split('\n').flatMap((line) => (line.endsWith(' installed') ? [line.split(' ')[0]] : [])),
  )
  return names.filter((name) => !installed.has(name))
}

/** Installs them without recommendations and without questions. Throws KitError with what apt complained of. */
export async function installPackages(names: readonly string[], options: AptOptions): Promise<void> {
  const install = ['install', '--no-install-recommends', ...names]
  const title = `Installing ${names.length} Debian packages`
  const estimateSeconds = 20 + 4 * names.length
  const areListsNew = !(await areKnown(names))
  let complaints = areListsNew ? await updateLists(options) : ''
  let step = options.progress.begin(title, estimateSeconds)
  let result = await aptGet(install, options, step)
  if (!areListsNew && isStale(result) && !options.signal.aborted) {
    step.failed()
    complaints = await updateLists(options)
    step = options.progress.begin(title, estimateSeconds)
    result = await aptGet(install, options, step)
  }
  // What is wrong with the lists explains better than that a package is not in them.
  if (isStale(result)) result = { ...result, complaints: `${complaints}${result.complaints}` }
  endStep(step, result, { doing: `install ${names.join(' ')}`, signal: options.signal })
}

/** The lists may never have been fetched, as in a fresh container. (`apt-cache show` is content with one of the names.) */
async function areKnown(names: readonly string[]): Promise<boolean> {
  const { exitCode } = await runCommand('apt-get', ['install', '--simulate', ...names])
  return exitCode === 0
}

/** Lists older than the archive name versions that are no longer there. */
function isStale({ exitCode, complaints }: AptResult): boolean {
  return (
    exitCode !== 0 &&
    /404 {2}Not Found|Unable to locate package|has no installation candidate/.test(complaints)
  )
}

/** What apt complained of: it is content with old lists, or none, when an archive does not answer. */
async function updateLists(options: AptOptions): Promise<string> {
  const step = options.progress.begin("Fetching Debian's package lists", 20)
  const result = await aptGet(['update'], options, step)
  endStep(step, result, { doing: "fetch Debian's package lists", signal: options.signal })
  return result.complaints
}

interface AptResult {
  readonly exitCode: number | undefined
  readonly complaints: string
}

function endStep(
  step: StepProgress,
  result: AptResult,
  { doing, signal }: { readonly doing: string; readonly signal: AbortSignal },
): void {
  if (result.exitCode === 0) {
    step.done()
    return
  }
  step.failed()
  signal.throwIfAborted()
  throw aptError(doing, result.complaints)
}

/** What helps, by what apt says in English (LC_ALL); the first that fits counts. */
const REMEDIES: readonly { readonly says: RegExp; readonly code: ErrorCode; readonly fix: string }[] = [
  {
    says: /Failed to fetch|Could not resolve|Temporary failure resolving/,
    code: 'unavailable',
    fix: 'connect this machine to the internet, or name a mirror in /etc/apt; then try: apt-get update',
  },
  {
    says: /enough free space|No space left/,
    code: 'no-space',
    fix: 'free 2 GB in /usr and /var/cache/apt (apt-get clean)',
  },
  {
    says: /Could not get lock|Unable to acquire the dpkg/,
    code: 'conflict',
    fix: 'wait until the other package manager has ended',
  },
  {
    says: /dpkg was interrupted|unmet dependencies|held broken packages/,
    code: 'conflict',
    fix: 'dpkg --configure -a && apt-get --fix-broken install',
  },
]

/** Exported for its tests. */
export function aptError(doing: string, complaints: string): KitError {
  const remedy = REMEDIES.find(({ says }) => says.test(complaints))
  const line = complaints.split('\n').find((text) => remedy?.says.test(text)) ?? firstError(complaints)
  return new KitError(remedy?.code ?? 'unavailable', `Cannot ${doing}: ${line.replace(/^[EW]: /, '')}`, {
    fix: remedy?.fix ?? 'see what apt says: apt-get update',
  })
}

function firstError(complaints: string): string {
  const lines = complaints.split('\n').map((line) => line.trim())
  return (
    lines.find((line) => line.startsWith('E: ')) ?? lines.find((line) => line !== '') ?? 'no reason given'
  )
}

/** Exported for its tests: downloading is the first half of an installation, unpacking and setting up the second. */
export function statusPercent(line: string): { percent: number; text: string } | undefined {
  const match = /^(dlstatus|pmstatus):[^:]*:([\d.]+):(.*)$/.exec(line)
  if (match === null) return undefined
  const half = Number(match[2]) / 2
  return { percent: match[1] === 'dlstatus' ? half : 50 + half, text: match[3] ?? '' }
}

async function aptGet(args: readonly string[], options: AptOptions, step: StepProgress): Promise<AptResult> {
  const child = spawn(
    'apt-get',
    ['--yes', '--quiet', '--option=APT::Status-Fd=3', '--option=DPkg::Lock::Timeout=120', ...args],
    {
      stdio: ['ignore', 'ignore', 'pipe', 'pipe'],
      env: { ...options.env, DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C.UTF-8' },
    },
  )
  const interrupt = () => void child.kill('SIGINT')
  options.signal.addEventListener('abort', interrupt)
  const status = child.stdio[3]
  if (status) {
    onLines(status as Readable, (line) => {
      const told = statusPercent(line)
      if (told !== undefined) step.update(told.percent, told.text)
    })
  }
  let complaints = ''
  child.stderr?.on('data', (chunk: Buffer) => {
    complaints += chunk.toString()
  })
  const exitCode = await new Promise<number | undefined>((resolve, reject) => {
    child.once('error', (error) => reject(cannotStart('apt-get', error)))
    child.once('close', (code) => resolve(code ?? undefined))
  }).finally(() => options.signal.removeEventListener('abort', interrupt))
  return { exitCode, complaints }
}
