// Where Kubernetes' own programs lie on this machine, for tests that run them.

import { access, readdir } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'

const KUBE_PROGRAMS = ['kubeadm', 'kubectl', 'kube-apiserver', 'kube-controller-manager'] as const

/**
 * The folder that has them all: `KATESKIT_KUBERNETES_BIN`, else those of the newest version
 * in `${XDG_CACHE_HOME:-~/.cache}/kateskit/kubernetes/<version>-<digest>/bin`, which the setup makes.
 */
export async function kubernetesBinaries(env: NodeJS.ProcessEnv = process.env): Promise<string> {
  const cache = join(env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'kateskit', 'kubernetes')
  const builds = await readdir(cache).catch(() => [])
  const named = env['KATESKIT_KUBERNETES_BIN']
  const newestFirst = builds.toSorted((one, other) => other.localeCompare(one, 'en', { numeric: true }))
  const folders = named ? [named] : newestFirst.map((build) => join(cache, build, 'bin'))
  for (const folder of folders) if (await hasAll(folder)) return folder
  throw new Error(`Cannot find Kubernetes: no ${KUBE_PROGRAMS.join(', ')} in ${named ?? `${cache}/*/bin`}`)
}

async function hasAll(folder: string): Promise<boolean> {
  const missing = await Promise.allSettled(KUBE_PROGRAMS.map((program) => access(join(folder, program))))
  return missing.every(({ status }) => status === 'fulfilled')
}
