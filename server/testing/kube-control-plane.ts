// A real control plane for tests: etcd, the API server and the controllers of Kubernetes, as processes of the test.

import { mkdtemp, open, readFile, rm } from 'node:fs/promises'
import { get } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { type Child, startChild } from '#lib/child.ts'
import { KitError } from '#lib/errors.ts'
import { runCommand } from '#lib/process.ts'
import { pollUntil } from '#lib/retry.ts'

import { kubernetesBinaries } from './kube-binaries.ts'
import { type KubePki, makeKubePki, minorOf } from './kube-pki.ts'
import { ip } from './own-network.ts'

export interface KubeControlPlane {
  /** `10.88.0.1:6443`. */
  readonly endpoint: string
  readonly address: string
  readonly pki: KubePki
  /** The administrator's kubeconfig. */
  readonly kubeconfig: string
  readonly apiServer: Program
  readonly etcd: Program
  /** What `kubectl` as the administrator printed; `input`, text or an object, goes to `-f -`. Throws when it fails. */
  kubectl(args: readonly string[], input?: unknown): Promise<string>
  kubeadm(...args: readonly string[]): Promise<string>
  stop(): Promise<void>
}

/** One that can be ended and started again. */
export interface Program {
  readonly pid: () => number
  /** Resolves when it answers that it is ready. */
  start(): Promise<void>
  /** SIGKILL. Resolves when it is gone. */
  kill(): Promise<void>
}

export interface KubeOptions {
  /** Unique within the network namespace. 10.88.0.1 unless given. */
  readonly address?: string
  /** Of the controller manager, which does not run without any. */
  readonly controllers?: readonly KubeController[]
}

export type KubeController =
  | 'bootstrapsigner'
  | 'tokencleaner'
  | 'csrsigning'
  | 'csrapproving'
  | 'garbagecollector'
  | 'disruption'
  | 'serviceaccount'
  | 'serviceaccount-token'
  | 'podgc'

/** Call `enterOwnNetwork` first: the ports are Kubernetes' own. Its programs end with this thread at the latest. */
export async function startKubeControlPlane(options: KubeOptions = {}): Promise<KubeControlPlane> {
  const { address = '10.88.0.1', controllers = [] } = options
  const binaries = await kubernetesBinaries()
  const folder = await mkdtemp(join(tmpdir(), 'kit-kube-'))
  // kubeadm refuses 127.0.0.0/8.
  await ip(`address add ${address}/32 dev lo`)
  const pki = await makeKubePki(binaries, folder, address)
  const programs = await makePrograms({ binaries, folder, address, controllers, pki })
  const stop = async () => {
    await Promise.all(programs.map((program) => program.kill()))
    await rm(folder, { recursive: true, force: true })
  }
  try {
    for (const program of programs) await program.start()
  } catch (error) {
    await stop()
    throw error
  }
  const admin = pki.kubeconfig('admin')
  const run = async (command: string, args: readonly string[], input?: unknown) => {
    const text = typeof input === 'string' ? input : JSON.stringify(input)
    const given = input === undefined ? {} : { input: text }
    const { exitCode, stdout, stderr } = await runCommand(join(binaries, command), args, given)
    if (exitCode !== 0) throw new Error(`${command} ${args.join(' ')}: ${stderr}`)
    return stdout
  }
  const [etcd, apiServer] = programs
  return {
    ...{ endpoint: `${address}:6443`, address, pki, apiServer, etcd, stop },
    kubeconfig: await readFile(admin, 'utf8'),
    kubectl: (args, input) => run('kubectl', ['--kubeconfig', admin, ...args], input),
    kubeadm: (...args) => run('kubeadm', [...args, '--config', pki.configFile, '--kubeconfig', admin]),
  }
}

interface Plane {
  readonly binaries: string
  readonly folder: string
  readonly address: string
  readonly controllers: readonly string[]
  readonly pki: KubePki
}

/** In the order in which they start. */
async function makePrograms(plane: Plane): Promise<readonly [Program, Program, ...Program[]]> {
  const { binaries, folder, address, controllers, pki } = plane
  const ca = await pki.read('ca.crt')
  const etcd = makeProgram(folder, 'etcd', etcdArguments(folder, address), () => etcdHealth(pki, address))
  const apiServer = makeProgram(folder, join(binaries, 'kube-apiserver'), apiArguments(pki, address), () =>
    httpsOk(`https://${address}:6443/readyz`, { ca }),
  )
  if (controllers.length === 0) return [etcd, apiServer]
  const command = join(binaries, 'kube-controller-manager')
  const manager = makeProgram(folder, command, managerArguments(pki, address, controllers), () =>
    httpsOk(`https://${address}:10257/healthz`, { rejectUnauthorized: false }),
  )
  return [etcd, apiServer, manager]
}

function etcdArguments(folder: string, address: string): string[] {
  const pki = join(folder, 'pki', 'etcd')
  const client = `https://${address}:2379`
  const peer = `https://${address}:2380`
  return [
    ...['--name', 'control-plane', '--data-dir', join(folder, 'etcd'), '--logger', 'zap'],
    ...['--listen-client-urls', client, '--advertise-client-urls', client],
    ...['--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer],
    ...['--initial-cluster', `control-plane=${peer}`],
    ...['--cert-file', join(pki, 'server.crt'), '--key-file', join(pki, 'server.key')],
    ...['--trusted-ca-file', join(pki, 'ca.crt'), '--client-cert-auth'],
    ...['--peer-cert-file', join(pki, 'peer.crt'), '--peer-key-file', join(pki, 'peer.key')],
    ...['--peer-trusted-ca-file', join(pki, 'ca.crt'), '--peer-client-cert-auth'],
  ]
}

/** kubeadm's, but for the ports and the count of its own endpoints in the API. */
function apiArguments({ folder, version }: KubePki, address: string): string[] {
  const file = (name: string) => join(folder, name)
  return [
    ...[`--advertise-address=${address}`, `--bind-address=${address}`, '--secure-port=6443'],
    ...[`--etcd-servers=https://${address}:2379`, `--etcd-cafile=${file('etcd/ca.crt')}`],
    `--etcd-certfile=${file('apiserver-etcd-client.crt')}`,
    `--etcd-keyfile=${file('apiserver-etcd-client.key')}`,
    ...[`--client-ca-file=${file('ca.crt')}`, `--tls-cert-file=${file('apiserver.crt')}`],
    `--tls-private-key-file=${file('apiserver.key')}`,
    `--kubelet-client-certificate=${file('apiserver-kubelet-client.crt')}`,
    `--kubelet-client-key=${file('apiserver-kubelet-client.key')}`,
    ...[
      `--service-account-key-file=${file('sa.pub')}`,
      `--service-account-signing-key-file=${file('sa.key')}`,
    ],
    '--service-account-issuer=https://kubernetes.default.svc.cluster.local',
    ...['--authorization-mode=Node,RBAC', '--enable-admission-plugins=NodeRestriction'],
    '--allow-privileged=true',
    ...['--enable-bootstrap-token-auth=true', '--service-cluster-ip-range=10.96.0.0/12'],
    ...(minorOf(version) < 24 ? ['--insecure-port=0'] : []),
  ]
}

function managerArguments(pki: KubePki, address: string, controllers: readonly string[]): string[] {
  const kubeconfig = pki.kubeconfig('controller-manager')
  const file = (name: string) => join(pki.folder, name)
  return [
    ...[`--kubeconfig=${kubeconfig}`, `--authentication-kubeconfig=${kubeconfig}`],
    ...[`--authorization-kubeconfig=${kubeconfig}`, '--leader-elect=false'],
    ...[`--bind-address=${address}`, ...(minorOf(pki.version) < 24 ? ['--port=0'] : [])],
    ...[`--root-ca-file=${file('ca.crt')}`, `--client-ca-file=${file('ca.crt')}`],
    ...[`--cluster-signing-cert-file=${file('ca.crt')}`, `--cluster-signing-key-file=${file('ca.key')}`],
    ...[`--service-account-private-key-file=${file('sa.key')}`, '--use-service-account-credentials'],
    `--controllers=${controllers.join(',')}`,
  ]
}

function makeProgram(
  folder: string,
  command: string,
  args: readonly string[],
  ready: () => Promise<void>,
): Program {
  const name = command.split('/').at(-1) ?? command
  const logFile = join(folder, `${name}.log`)
  let child: Child | undefined
  return {
    pid: () => child?.pid ?? 0,
    async start() {
      const log = await open(logFile, 'a')
      const started = startChild(command, args, { stdio: ['ignore', log.fd, log.fd] })
      child = started
      await log.close()
      await pollUntil(
        async () => {
          if (!started.isRunning()) throw await ended(name, await started.exited, logFile)
          return ready().then(
            () => true,
            () => undefined,
          )
        },
        { everyMs: 50, timeoutMs: 90_000, late: () => new KitError('unavailable', `${name} is not ready`) },
      )
    },
    async kill() {
      await child?.kill()
    },
  }
}

async function ended(name: string, how: string, logFile: string): Promise<Error> {
  const log = await readFile(logFile, 'utf8')
  return new Error(`${name} ended (${how}): ${log.split('\n').slice(-12).join('\n')}`)
}

async function etcdHealth(pki: KubePki, address: string): Promise<void> {
  const name = 'etcd/healthcheck-client'
  const [ca, cert, key] = await Promise.all(['etcd/ca.crt', `${name}.crt`, `${name}.key`].map(pki.read))
  await httpsOk(`https://${address}:2379/health`, { ca, cert, key })
}

function httpsOk(url: string, tls: object): Promise<void> {
  return new Promise((resolve, reject) => {
    const request = get(url, { ...tls, timeout: 5_000, agent: false }, (response) => {
      response.resume()
      response.once('end', () => (response.statusCode === 200 ? resolve() : reject(new Error(url))))
    })
    request.once('timeout', () => request.destroy())
    request.once('error', reject)
  })
}
