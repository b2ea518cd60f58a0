// Kubernetes itself: fetched or built once for each recipe and version, outside the checkout, and found again.

import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

import { KitError } from '#lib/errors.ts'
import { commandOutput } from '#lib/process.ts'

import { type RecipeSurroundings, runRecipe } from './recipe.ts'

export const KUBERNETES_SOURCES = ['none', 'packages', 'directory', 'debian-source'] as const
export const CONTAINER_RUNTIMES = ['containerd', 'cri-o'] as const
export const OCI_RUNTIMES = ['runc', 'crun'] as const

/** Where Kubernetes comes from; what is undefined is left to the recipe, which looks for it as the server does. */
export interface KubernetesChoice {
  readonly source: (typeof KUBERNETES_SOURCES)[number]
  /** A minor, or a release of it. */
  readonly version?: string
  readonly directory?: string
  readonly cri?: (typeof CONTAINER_RUNTIMES)[number]
  readonly ociRuntime?: (typeof OCI_RUNTIMES)[number]
  readonly repository?: string
  readonly repositoryKey?: string
}

/** What the recipes read. */
export function kubernetesEnvironment(choice: KubernetesChoice): Record<string, string> {
  const values = {
    SOURCE: choice.source,
    VERSION: choice.version,
    DIRECTORY: choice.directory,
    CRI: choice.cri,
    OCI_RUNTIME: choice.ociRuntime,
    REPOSITORY: choice.repository,
    REPOSITORY_KEY: choice.repositoryKey,
  }
  const given = Object.entries(values).filter((entry): entry is [string, string] => entry[1] !== undefined)
  return Object.fromEntries(given.map(([name, value]) => [`KATESKIT_KUBERNETES_${name}`, value]))
}

/** What tests run against: what anybody can build. Machines have it in an image as well. */
export const TEST_KUBERNETES: KubernetesChoice = {
  source: 'debian-source',
  version: '1.20',
  cri: 'containerd',
  ociRuntime: 'runc',
}

export interface KubernetesOptions extends RecipeSurroundings {
  readonly choice: KubernetesChoice
  /** `debian-source` only: the version that is linked in, for tests of upgrades; there is one source. */
  readonly versionLabel?: string
}

export interface KubernetesBuild {
  readonly folder: string
  /** `v1.33.4` */
  readonly version: string
  /** kubeadm, kubelet, kubectl, and of a source that is built here the control plane's too. */
  readonly binFolder: string
  /** OCI image archives, as far as the source has any. */
  readonly images: readonly { readonly reference: string; readonly file: string }[]
}

/** Where the archives of its container images lie; undefined when it has none. */
export function imagesFolder({ folder, images }: KubernetesBuild): string | undefined {
  return images.length === 0 ? undefined : join(folder, 'images')
}

/** From nothing on two cores, by source. */
const ESTIMATE_SECONDS = { 'debian-source': 500, packages: 40, directory: 10, none: 1 } as const

/** Undefined when it is not there; also where its settings are wrong, which making it says. */
export async function findKubernetes(options: KubernetesOptions): Promise<KubernetesBuild | undefined> {
  const { script, args, env } = callOf(options)
  const found = await commandOutput(script, [...args, '--find'], { env }).catch(() => '')
  return found.trim() === '' ? undefined : readBuild(found.trim())
}

function callOf({ choice, versionLabel, env, projectFolder }: KubernetesOptions) {
  return {
    script: join(projectFolder, 'assets/kubernetes/build.sh'),
    args: versionLabel === undefined ? [] : ['--version-label', versionLabel],
    env: { ...env, ...kubernetesEnvironment(choice) },
  }
}

/** Makes it when it is not there. Throws KitError with the recipe's own words. */
export async function ensureKubernetes(options: KubernetesOptions): Promise<KubernetesBuild> {
  const found = await findKubernetes(options)
  if (found !== undefined) return found
  const { choice } = options
  const { script, args, env } = callOf(options)
  const isBuilt = choice.source === 'debian-source'
  const recipe = {
    ...{ script, args, title: isBuilt ? 'Building Kubernetes' : 'Fetching Kubernetes' },
    ...{ estimateSeconds: ESTIMATE_SECONDS[choice.source], logName: 'kubernetes-build.log' },
  }
  return readBuild(await runRecipe(recipe, { ...options, env }))
}

async function readBuild(folder: string): Promise<KubernetesBuild> {
  const said = JSON.parse(await readFile(join(folder, 'kubernetes.json'), 'utf8')) as Partial<Written>
  if (typeof said.version !== 'string' || !Array.isArray(said.images)) {
    throw new KitError(
      'internal',
      `Cannot use the Kubernetes in ${folder}: kubernetes.json is not what it was`,
      {
        fix: `rm -r ${folder}`,
      },
    )
  }
  const images = said.images.map(({ reference, file }) => ({ reference, file: join(folder, file) }))
  return { folder, version: said.version, binFolder: join(folder, 'bin'), images }
}

/** kubernetes.json, by assets/kubernetes/manifest.sh. */
interface Written {
  readonly version: string
  readonly images: readonly { readonly reference: string; readonly file: string }[]
}
