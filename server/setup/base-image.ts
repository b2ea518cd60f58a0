// The base image: built once for each recipe, outside the checkout, and found again.

import { access, mkdir, statfs } from 'node:fs/promises'
import { join } from 'node:path'

import { KitError } from '#lib/errors.ts'
import { commandOutput } from '#lib/process.ts'

import { ensureKubernetes, type KubernetesChoice, kubernetesEnvironment } from './kubernetes.ts'
import { type RecipeSurroundings, runRecipe } from './recipe.ts'

export interface BaseImageOptions extends RecipeSurroundings {
  /** Default: assets/image of the project. */
  readonly recipeFolder?: string
  /** Default: what the settings kubernetes/… say where the recipe looks for them, which is none if nothing does. */
  readonly kubernetes?: KubernetesChoice
}

/** Peak of a build with its cached Debian tree, and room to breathe (assets/image/preflight.sh refuses below 3 GB). */
const NEEDED_GIB = 4

/** Two cores and a near mirror: the Debian tree 3 min, packing 2 min. */
const BUILD_SECONDS = 300

/** Builds the image of this checkout's recipe when it is not there; its folder. Throws KitError with the recipe's own words. */
export async function ensureBaseImage(options: BaseImageOptions): Promise<string> {
  const { kubernetes, projectFolder } = options
  if (kubernetes !== undefined && kubernetes.source !== 'none') {
    await ensureKubernetes({ ...options, choice: kubernetes })
  }
  const recipe = options.recipeFolder ?? join(projectFolder, 'assets/image')
  const env = environmentOf(options)
  const digest = (await commandOutput(join(recipe, 'digest.sh'), ['image'], { env })).trim()
  const folder = join(cacheFolder(env), 'images', digest)
  if (await exists(join(folder, 'manifest.json'))) return folder
  return buildImage([], options)
}

const environmentOf = ({ env, kubernetes }: BaseImageOptions): NodeJS.ProcessEnv =>
  kubernetes === undefined ? env : { ...env, ...kubernetesEnvironment(kubernetes) }

/** Runs the recipe with these arguments; the folder of the image. Throws KitError with the recipe's own words. */
export async function buildImage(args: readonly string[], options: BaseImageOptions): Promise<string> {
  const recipe = options.recipeFolder ?? join(options.projectFolder, 'assets/image')
  const cache = cacheFolder(options.env)
  await mkdir(cache, { recursive: true })
  await checkSpace(cache)
  const build = {
    ...{ script: join(recipe, 'build.sh'), args, title: 'Building the base image' },
    ...{ estimateSeconds: BUILD_SECONDS, logName: 'image-build.log' },
  }
  return runRecipe(build, { ...options, env: environmentOf(options) })
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

async function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  )
}
