// Which Kubernetes an image gets when nobody has said it: the community's packages where they can be had, else none.

import { access } from 'node:fs/promises'
import { join } from 'node:path'

import { runCommand } from '#lib/process.ts'

import { installPackages, missingPackages } from './apt.ts'
import {
  ensureKubernetes,
  findKubernetes,
  type KubernetesBuild,
  type KubernetesChoice,
  kubernetesEnvironment,
} from './kubernetes.ts'
import { kubernetesPackages } from './packages.ts'
import { type RecipeSurroundings, recipeError } from './recipe.ts'

/** What the settings kubernetes/… say. */
export interface KubernetesSettings extends Omit<KubernetesChoice, 'source'> {
  readonly source: KubernetesChoice['source'] | 'auto'
  /** The machines have no way to the internet, and nobody brings them container images: `packages` have none. */
  readonly isCutOff?: boolean
}

export interface PreparedKubernetes {
  readonly choice: KubernetesChoice
  /** Undefined for an image without. */
  readonly build: KubernetesBuild | undefined
}

const NONE: KubernetesChoice = { source: 'none' }

/** What apt would wait for is waited for here once, and not long. */
const PROBE_SECONDS = 5

const BUILD_IT = 'mkdir -p config/kubernetes; echo debian-source >config/kubernetes/source'

/** Decides, and makes what an image with Kubernetes is built of. Throws KitError with the recipe's own words. */
export async function prepareKubernetes(
  settings: KubernetesSettings,
  options: RecipeSurroundings,
): Promise<PreparedKubernetes> {
  const choice = await chooseKubernetes(settings, options)
  options.signal.throwIfAborted()
  const missing = await missingPackages(kubernetesPackages(choice.source))
  if (missing.length > 0) await installPackages(missing, options)
  const build = choice.source === 'none' ? undefined : await ensureKubernetes({ ...options, choice })
  return { choice, build }
}

/** Exported for its tests. Asks the network once at most, and says what came of it where that is not what people want. */
export async function chooseKubernetes(
  { source, isCutOff = false, ...rest }: KubernetesSettings,
  options: RecipeSurroundings,
): Promise<KubernetesChoice> {
  const { progress } = options
  if (isCutOff && (source === 'auto' || source === 'packages')) {
    const what = source === 'auto' ? 'The image gets no Kubernetes' : 'The machines will make no cluster'
    progress.note(
      `${what}: they have no way to the internet, and registry/import names no container images. This builds both here: ${BUILD_IT}`,
    )
    return source === 'auto' ? NONE : { ...rest, source }
  }
  if (source !== 'auto') return { ...rest, source }
  const packages = { ...rest, source: 'packages' } as const
  if ((await findKubernetes({ ...options, choice: packages })) !== undefined) return packages
  const repository = await repositoryOf(packages, options)
  const problem = await findProblem(repository, options)
  if (problem === undefined) return packages
  progress.note(
    `The image gets no Kubernetes: ${repository} does not answer (${problem}). Name a mirror in config/kubernetes/repository, or build it here: ${BUILD_IT}`,
  )
  return NONE
}

/** A URL, or `copy:` and a folder. */
async function repositoryOf(choice: KubernetesChoice, options: RecipeSurroundings): Promise<string> {
  const script = join(options.projectFolder, 'assets/kubernetes/build.sh')
  const env = { ...options.env, ...kubernetesEnvironment(choice) }
  const { exitCode, stdout, stderr } = await runCommand(script, ['--repository'], { env })
  if (exitCode === 0) return stdout.trim()
  const about = { logFile: script, title: 'Looking for Kubernetes' }
  throw recipeError(stderr.split('\n'), `exit code ${exitCode ?? 'none'}`, about)
}

/** Why nothing can be fetched from there: undefined when it can. By curl, which goes through proxies as apt does. */
async function findProblem(
  repository: string,
  { env }: Pick<RecipeSurroundings, 'env'>,
): Promise<string | undefined> {
  if (repository.startsWith('copy:')) {
    const folder = repository.slice('copy:'.length)
    const isThere = await access(join(folder, 'Release')).then(
      () => true,
      () => false,
    )
    return isThere ? undefined : 'it has no file Release'
  }
  const { exitCode, stderr } = await runCommand(
    'curl',
    [
      ...['-q', '--silent', '--show-error', '--fail', '--location', '--max-time', `${PROBE_SECONDS}`],
      ...['--proto', '=http,https', '--output', '/dev/null', `${repository}Release`],
    ],
    { env },
  )
  if (exitCode === 0) return undefined
  return (
    stderr
      .trim()
      .split('\n')
      .at(-1)
      ?.replace(/^curl: /, '') || `curl ended with ${exitCode}`
  )
}
