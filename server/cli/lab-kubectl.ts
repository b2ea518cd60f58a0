// kubectl for the lab's cluster, whose network this host has no other way into: a kubeconfig, and a script that uses it there.

import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import { type LabNetwork, labControlSocket } from '#lab/lab-network.ts'
import { createJsonHttp } from '#lib/json-http.ts'
import type { KubernetesBuild } from '#setup/kubernetes.ts'

const NAMES = ['kubectl', 'kubeconfig']

/** The script. It works for as long as the lab runs. */
export async function writeLabKubectl(
  { folder, netns }: Pick<LabNetwork, 'folder' | 'netns'>,
  { binFolder }: Pick<KubernetesBuild, 'binFolder'>,
): Promise<string> {
  const [script = '', kubeconfig = ''] = filesOf(folder)
  await removeLabKubectl(folder)
  const http = createJsonHttp({ kind: 'socket', path: labControlSocket(folder) })
  const answer = (await http.request('POST', '/api/v1/cluster/kubeconfig', {})) as { kubeconfig: string }
  await writeFile(kubeconfig, answer.kubeconfig, { mode: 0o600 })
  const words = netns.commandLine(join(binFolder, 'kubectl'), ['--kubeconfig', kubeconfig])
  await writeFile(script, `#!/bin/sh\nexec ${words.map(quote).join(' ')} "$@"\n`, { mode: 0o700 })
  return script
}

export async function removeLabKubectl(folder: string): Promise<void> {
  for (const file of filesOf(folder)) await rm(file, { force: true })
}

const filesOf = (folder: string) => NAMES.map((name) => join(folder, name))

const quote = (word: string) => `'${word.replaceAll("'", "'\\''")}'`
