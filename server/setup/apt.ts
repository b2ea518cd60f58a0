// Debian packages: which are missing, and installing them.

import { spawn } from 'node:child_process'
import type { Readable } from 'node:stream'

import { KitError } from '#lib/errors.ts'
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
  if (!(await areKnown(names))) await updateLists(options)
  const step = options.progress.begin(`Installing ${names.length} Debian packages`, 20 + 4 * names.length)
  let result = await aptGet(['install', '--no-install-recommends', ...names], options, step)
  if (result.exitCode !== 0 && isStale(result.complaints) && !options.signal.aborted) {
    step.failed()
    await updateLists(options)
    result = await aptGet(['install', '--no-install-recommends', ...names], options, step)
  }
  endStep(step, result, { doing: `install ${names.join(' ')}`, signal: options.signal })
}

/** The lists may never have been fetched, as in a fresh container. (`apt-cache show` is content with one of the names.) */
async function areKnown(names: readonly string[]): Promise<boolean> {
  const { exitCode } = await runCommand('apt-get', ['install', '--simulate', ...names])
  return exitCode === 0
}

/** Lists older than the archive name versions that are no longer there. */
function isStale(complaints: string): boolean {
  return /404 {2}Not Found|Unable to locate package|has no installation candidate/.test(complaints)
}

async function updateLists(options: AptOptions): Promise<void> {
  const step = options.progress.begin("Fetching Debian's package lists", 20)
  const result = await aptGet(['update'], options, step)
  endStep(step, result, { doing: "fetch Debian's package lists", signal: options.signal })
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
  throw new KitError('unavailable', `Cannot ${doing}: ${firstError(result.complaints)}`, {
    fix: `see whether this machine reaches the Debian archive: apt-get update`,
  })
}

/** Exported for its tests. */
export function firstError(complaints: string): string {
  const lines = complaints.split('\n').map((line) => line.trim())
  return (
    lines.find((line) => line.startsWith('E: '))?.slice(3) ??
    lines.find((line) => line !== '') ??
    'no reason given'
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
