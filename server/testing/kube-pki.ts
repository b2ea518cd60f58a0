// The keys and kubeconfigs of a control plane, as kubeadm itself makes them.

import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import { commandOutput } from '#lib/process.ts'

export interface KubePki {
  /** kubeadm's `pki/`. */
  readonly folder: string
  /** For `kubeadm --config`. */
  readonly configFile: string
  /** `v1.20.2`. */
  readonly version: string
  kubeconfig(user: 'admin' | 'controller-manager'): string
  read(file: string): Promise<string>
}

/** In `folder`, for an API server at `address`:6443 with etcd beside it. */
export async function makeKubePki(binaries: string, folder: string, address: string): Promise<KubePki> {
  const kubeadm = join(binaries, 'kubeadm')
  const version = (await commandOutput(kubeadm, ['version', '-o', 'short'])).trim()
  const pki = join(folder, 'pki')
  const configFile = join(folder, 'kubeadm.json')
  await mkdir(pki, { recursive: true })
  await writeFile(configFile, kubeadmConfig(version, pki, address))
  await commandOutput(kubeadm, ['init', 'phase', 'certs', 'all', '--config', configFile])
  const users = ['admin', 'controller-manager']
  await Promise.all(
    users.map((user) =>
      commandOutput(kubeadm, [
        ...['init', 'phase', 'kubeconfig', user],
        ...['--config', configFile, '--kubeconfig-dir', folder],
      ]),
    ),
  )
  return {
    folder: pki,
    configFile,
    version,
    kubeconfig: (user) => join(folder, `${user}.conf`),
    read: (file) => readFile(join(pki, file), 'utf8'),
  }
}

function kubeadmConfig(version: string, certificatesDir: string, address: string): string {
  const apiVersion = `kubeadm.k8s.io/${minorOf(version) < 22 ? 'v1beta2' : 'v1beta3'}`
  const documents = [
    {
      ...{ apiVersion, kind: 'InitConfiguration' },
      localAPIEndpoint: { advertiseAddress: address, bindPort: 6443 },
      nodeRegistration: { name: 'control-plane', criSocket: '/run/containerd/containerd.sock' },
    },
    {
      ...{ apiVersion, kind: 'ClusterConfiguration' },
      ...{ kubernetesVersion: version, certificatesDir },
      controlPlaneEndpoint: `${address}:6443`,
    },
  ]
  return documents.map((document) => `${JSON.stringify(document)}\n`).join('---\n')
}

/** 20 of `v1.20.2`. */
export function minorOf(version: string): number {
  return Number(version.split('.')[1])
}
