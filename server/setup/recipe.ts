// Runs a build that is written in shell, as a step of the progress: its words, its log, its end.

import { mkdir, open } from 'node:fs/promises'
import { dirname, join } from 'node:path'

import { type Child, startChild } from '#lib/child.ts'
import { KitError } from '#lib/errors.ts'
import { onLines } from '#lib/process.ts'

import type { Progress, StepProgress } from './progress.ts'

export interface RecipeSurroundings {
  readonly projectFolder: string
  readonly env: NodeJS.ProcessEnv
  readonly progress: Progress
  readonly signal: AbortSignal
}

export interface Recipe {
  readonly script: string
  readonly args: readonly string[]
  /** For the bar: "Building the base image". */
  readonly title: string
  readonly estimateSeconds: number
  /** Of the log, under var/log/. */
  readonly logName: string
}

/** What the script printed last: a folder. Throws KitError with the script's own words. */
export async function runRecipe(recipe: Recipe, surroundings: RecipeSurroundings): Promise<string> {
  const { projectFolder, env, progress, signal } = surroundings
  const logFile = join(projectFolder, 'var/log', recipe.logName)
  await mkdir(dirname(logFile), { recursive: true })
  const log = await open(logFile, 'w')
  const step = progress.begin(recipe.title, recipe.estimateSeconds)
  const child = startChild(recipe.script, recipe.args, {
    stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
    env,
    cwd: projectFolder,
  })
  const stop = () => void child.stop(BUILD_GRACE_MS)
  signal.addEventListener('abort', stop)
  try {
    const { complaints, printed } = await follow(child, step, (line) => log.write(`${line}\n`))
    signal.throwIfAborted()
    const how = await child.exited
    if (how !== 'exit code 0') throw recipeError(complaints, how, { logFile, title: recipe.title })
    step.done()
    return printed.at(-1) ?? ''
  } catch (error) {
    step.failed()
    throw error
  } finally {
    signal.removeEventListener('abort', stop)
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

/** Exported for its tests: a recipe ends with `error: …` and `  fix: …` when it knows what is wrong. */
export function recipeError(
  complaints: readonly string[],
  how: string,
  { logFile, title }: { readonly logFile: string; readonly title: string },
): KitError {
  const error = complaints.findLast((line) => line.startsWith('error: '))?.slice('error: '.length)
  const fix = complaints.findLast((line) => line.startsWith('  fix: '))?.slice('  fix: '.length)
  const last = complaints.findLast((line) => line.trim() !== '') ?? how
  return new KitError('unavailable', error ?? `${title} failed: ${last}`, {
    fix: fix ?? `read ${logFile}`,
  })
}
