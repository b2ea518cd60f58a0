// The base image: built once for each recipe, outside the checkout, and found again.

import { access, mkdir, open, statfs } from 'node:fs/promises'
import { dirname, join } from 'node:path'

import { type Child, startChild } from '#lib/child.ts'
import { KitError } from '#lib/errors.ts'
import { commandOutput, onLines } from '#lib/process.ts'

import type { Progress, StepProgress } from './progress.ts'

export interface BaseImageOptions {
  readonly projectFolder: string
  readonly env: NodeJS.ProcessEnv
  readonly progress: Progress
  readonly signal: AbortSignal
  /** Default: assets/image of the project. */
  readonly recipeFolder?: string
}

/** Peak of a build with its cached Debian tree, and room to breathe (assets/image/preflight.sh refuses below 3 GB). */
const NEEDED_GIB = 4

/** Two cores and a near mirror: the Debian tree 3 min, packing 2 min. */
const BUILD_SECONDS = 300

/** Builds the image of this checkout's recipe when it is not there; its folder. Throws KitError with the recipe's own words. */
export async function ensureBaseImage(options: BaseImageOptions): Promise<string> {
  const recipe = options.recipeFolder ?? join(options.projectFolder, 'assets/image')
  const cache = cacheFolder(options.env)
  const digest = (await commandOutput(join(recipe, 'digest.sh'), ['image'], { env: options.env })).trim()
  const folder = join(cache, 'images', digest)
  if (await exists(join(folder, 'manifest.json'))) return folder
  await buildImage([], options)
  return folder
}

/** Runs the recipe with these arguments; the folder of the image. Throws KitError with the recipe's own words. */
export async function buildImage(args: readonly string[], options: BaseImageOptions): Promise<string> {
  const recipe = options.recipeFolder ?? join(options.projectFolder, 'assets/image')
  const cache = cacheFolder(options.env)
  await mkdir(cache, { recursive: true })
  await checkSpace(cache)
  return build(join(recipe, 'build.sh'), args, options)
}

export function cacheFolder(env: NodeJS.ProcessEnv): string {
  return join(env['XDG_CACHE_HOME'] || join(env['HOME'] ?? '/root', '.cache'), 'kateskit')
}

/** Throws KitError `no-space`. `needed` is for its tests. */
export async function checkSpace(folder: string, neededGib = NEEDED_GIB): Promise<void> {
  const { bavail, bsize } = await statfs(folder)
  const freeGib = (bavail * bsize) / 1024 ** 3
  if (freeGib >= neededGib) return
  throw new KitError(
    'no-space',
    `Cannot build the base image: ${freeGib.toFixed(1)} GiB are free in ${folder}, ${neededGib} are needed`,
    { fix: 'free some space, or set XDG_CACHE_HOME to a folder on another disk' },
  )
}

/** What the script prints: the folder. */
async function build(script: string, args: readonly string[], options: BaseImageOptions): Promise<string> {
  const logFile = join(options.projectFolder, 'var/log/image-build.log')
  await mkdir(dirname(logFile), { recursive: true })
  const log = await open(logFile, 'w')
  const step = options.progress.begin('Building the base image', BUILD_SECONDS)
  const child = startChild(script, args, {
    stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
    env: options.env,
    cwd: options.projectFolder,
  })
  const stop = () => void child.stop(BUILD_GRACE_MS)
  options.signal.addEventListener('abort', stop)
  try {
    const { complaints, printed } = await follow(child, step, (line) => log.write(`${line}\n`))
    options.signal.throwIfAborted()
    const how = await child.exited
    if (how !== 'exit code 0') throw recipeError(complaints, how, logFile)
    step.done()
    return printed.at(-1) ?? ''
  } catch (error) {
    step.failed()
    throw error
  } finally {
    options.signal.removeEventListener('abort', stop)
    await log.close()
  }
}

/** It must unmount and delete what it has half done. */
const BUILD_GRACE_MS = 10_000

interface Followed {
  /** What it wrote to stderr, and to stdout. */
  readonly complaints: readonly string[]
  readonly printed: readonly string[]
}

/** Resolves when its pipes close. */
async function follow(
  child: Child,
  step: StepProgress,
  keep: (line: string) => Promise<unknown>,
): Promise<Followed> {
  const complaints: string[] = []
  const printed: string[] = []
  let written: Promise<unknown> = Promise.resolve() // one write after another, or the lines change places
  const { stdout, stderr, stdio } = child.process
  if (stdout) onLines(stdout, (line) => printed.push(line))
  if (stderr) {
    onLines(stderr, (line) => {
      complaints.push(line)
      written = written.then(() => keep(line))
      written.catch(() => {}) // heard below, when the program has ended
    })
  }
  onLines(stdio[3] as NonNullable<typeof stderr>, (line) => {
    const told = readProgress(line)
    if (told !== undefined) step.update(told.percent, told.text)
  })
  await new Promise((resolve) => child.process.once('close', resolve))
  await written
  return { complaints, printed }
}

/** Exported for its tests: `progress <percent> <text>`. */
export function readProgress(line: string): { percent: number; text: string } | undefined {
  const match = /^progress (\d{1,3}) ?(.*)$/.exec(line)
  return match === null ? undefined : { percent: Number(match[1]), text: match[2] ?? '' }
}

/** Exported for its tests: the recipe ends with `error: …` and `  fix: …` when it knows what is wrong. */
export function recipeError(complaints: readonly string[], how: string, logFile: string): KitError {
  const error = complaints.findLast((line) => line.startsWith('error: '))?.slice('error: '.length)
  const fix = complaints.findLast((line) => line.startsWith('  fix: '))?.slice('  fix: '.length)
  const last = complaints.findLast((line) => line.trim() !== '') ?? how
  return new KitError('unavailable', error ?? `Cannot build the base image: ${last}`, {
    fix: fix ?? `read ${logFile}`,
  })
}

async function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  )
}
