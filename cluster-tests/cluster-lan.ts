// A LAN of container machines that become a cluster: images in the server's registry, and kubectl as a person has it.

import { copyFile, mkdir, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'

import { CONTAINER_KUBEADM_PATCH } from '#lab/container.ts'
import { labControlSocket } from '#lab/lab-network.ts'
import { KitError } from '#lib/errors.ts'
import { createJsonHttp, type JsonHttp } from '#lib/json-http.ts'
import { pollUntil } from '#lib/retry.ts'
import type { ClusterView } from '#machine/cluster-ports.ts'
import { ensureKubernetes, type KubernetesBuild, TEST_KUBERNETES } from '#setup/kubernetes.ts'

import { personAt } from '../qemu-tests/kateskit.ts'
import { imageFolder, recipeSurroundings, type Surroundings, scratchFolder } from '../qemu-tests/test-lan.ts'
import { type ContainerLan, type ContainerLanOptions, startContainerLan } from './container-lan.ts'
import { writeWebImage } from './web-image.ts'

export interface ClusterLan extends ContainerLan {
  readonly kubernetes: KubernetesBuild
  readonly http: JsonHttp
  cluster(): Promise<ClusterView>
  /** Fetches a kubeconfig as a person does; kubectl has it from then on. */
  getKubeconfig(): Promise<void>
  /** What it prints. Throws with what it complains of. */
  kubectl(...args: readonly string[]): Promise<string>
  apply(manifest: string): Promise<void>
  /** What a web server inside the LAN answers, as soon as it does. */
  get(url: string): Promise<string>
}

/** On two busy cores a part of a cluster's life takes minutes. */
const PATIENCE_MS = 10 * 60_000

export async function startClusterLan(t: Surroundings, options: ContainerLanOptions): Promise<ClusterLan> {
  const kubernetes = await ensureKubernetes({ ...recipeSurroundings(), choice: TEST_KUBERNETES })
  const folder = await scratchFolder(t)
  const lan = await startContainerLan(t, {
    patienceMs: PATIENCE_MS,
    image: process.env['KATESKIT_TEST_IMAGE'] ?? (await imageFolder(TEST_KUBERNETES)),
    ...options,
    files: { 'defaults/registry-mirror': 'yes\n', 'defaults/cni': 'bridge\n', ...options.files },
    environment: {
      KATESKIT_KUBERNETES_SOURCE: TEST_KUBERNETES.source,
      KATESKIT_REGISTRY_IMPORT: await writeImages(join(folder, 'images'), kubernetes),
      KATESKIT_REGISTRY_DIRECTORY: join(folder, 'registry'),
      KATESKIT_CLUSTER_KUBEADM_PATCH: CONTAINER_KUBEADM_PATCH,
      ...options.environment,
    },
  })
  const http = createJsonHttp({ kind: 'socket', path: labControlSocket(lan.network.folder) })
  const kubeconfig = join(folder, 'kubeconfig')
  const kubectl: ClusterLan['kubectl'] = (...args) =>
    lan.network.netns.run(join(kubernetes.binFolder, 'kubectl'), ['--kubeconfig', kubeconfig, ...args])
  return {
    ...lan,
    kubernetes,
    http,
    kubectl,
    cluster: async () => (await http.request('GET', '/api/v1/cluster')) as ClusterView,
    async getKubeconfig() {
      await writeFile(kubeconfig, await personAt(lan).does('cluster', 'kubeconfig'), { mode: 0o600 })
    },
    async apply(manifest) {
      const file = join(folder, 'manifest.yaml')
      await writeFile(file, manifest)
      await kubectl('apply', '-f', file)
    },
    get: (url) =>
      pollUntil(
        () =>
          lan.network.netns
            .run('curl', ['-q', '-sSf', '--noproxy', '*', '--max-time', '5', url])
            .catch(() => undefined),
        {
          everyMs: 500,
          timeoutMs: PATIENCE_MS,
          late: () => new KitError('unavailable', `Cannot get ${url}: nobody answers`),
        },
      ),
  }
}

/** A folder of archives, as a person brings them. */
export async function writeImages(folder: string, ...builds: readonly KubernetesBuild[]): Promise<string> {
  await mkdir(folder, { recursive: true })
  for (const { version, images } of builds) {
    for (const { file } of images) await copyFile(file, join(folder, `${version}-${basename(file)}`))
  }
  await writeWebImage(folder)
  return folder
}
