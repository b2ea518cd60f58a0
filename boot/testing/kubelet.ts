// A kubelet without containers, for the tests of boot/node: runs what the static pods' manifests say as processes of this machine, starts
// again what ends or was changed, answers /healthz, and says in the API that its Node is Ready and that these pods run.
//
// node kubelet.ts ROOT NAME VERSION LOGS. ROOT is /etc/kubernetes or stands for it. Ends with what it has started on SIGTERM.

import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, openSync, readdirSync, readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { setTimeout as pause } from 'node:timers/promises'

const [root = '', name = '', version = '', logs = ''] = process.argv.slice(2)
const HEALTH_PORT = 10248
const LOOK_MS = 200

interface Pod {
  readonly manifest: string
  readonly child: ChildProcess
}

const pods = new Map<string, Pod>()

/** kubeadm's manifests have one container, whose command is a list of plain strings. */
function commandOf(manifest: string): string[] {
  const list = /^ {2}- command:\n(?<items>(?: {4}- .*\n)+)/m.exec(manifest)?.groups?.['items'] ?? ''
  return [...list.matchAll(/^ {4}- (?<item>.*)$/gm)].map((match) => match.groups?.['item'] ?? '')
}

function look(): void {
  const folder = `${root}/manifests`
  const files = existsSync(folder) ? readdirSync(folder).filter((file) => file.endsWith('.yaml')) : []
  for (const file of new Set([...files, ...pods.keys()])) {
    const manifest = files.includes(file) ? readFileSync(`${folder}/${file}`, 'utf8') : undefined
    const pod = pods.get(file)
    const hasEnded = pod !== undefined && (pod.child.exitCode !== null || pod.child.signalCode !== null)
    if (pod !== undefined && !hasEnded && pod.manifest !== manifest) pod.child.kill('SIGTERM')
    else if (pod === undefined || hasEnded) startPod(file, manifest)
  }
}

function startPod(file: string, manifest: string | undefined): void {
  const [command, ...args] = manifest === undefined ? [] : commandOf(manifest)
  pods.delete(file)
  if (command === undefined || manifest === undefined) return
  const log = openSync(`${logs}/${file}.log`, 'a')
  pods.set(file, { manifest, child: spawn(command, args, { stdio: ['ignore', log, log] }) })
}

function kubectl(args: readonly string[], input?: unknown): Promise<string> {
  return new Promise((resolve, reject) => {
    const all = ['--kubeconfig', `${root}/kubelet.conf`, '--request-timeout=10s', ...args]
    const child = execFile('kubectl', all, (error, stdout) =>
      error === null ? resolve(stdout) : reject(error),
    )
    child.stdin?.end(input === undefined ? undefined : JSON.stringify(input))
  })
}

async function register(): Promise<void> {
  const labels = { 'kubernetes.io/hostname': name }
  const node = { apiVersion: 'v1', kind: 'Node', metadata: { name, labels } }
  await kubectl(['create', '--raw', '/api/v1/nodes', '-f', '-'], node).catch(() => undefined)
  const found = JSON.parse(await kubectl(['get', 'node', name, '-o', 'json']))
  const nowText = new Date().toISOString().replace(/\.\d+/, '')
  const times = { lastHeartbeatTime: nowText, lastTransitionTime: nowText }
  found.status.conditions = [
    { type: 'Ready', status: 'True', reason: 'KubeletReady', message: 'it says so', ...times },
  ]
  found.status.nodeInfo.kubeletVersion = version
  await kubectl(['replace', '--raw', `/api/v1/nodes/${name}/status`, '-f', '-'], found)
  const owner = { apiVersion: 'v1', kind: 'Node', name, uid: found.metadata.uid, controller: true }
  for (const [file, { manifest }] of pods) await mirror(file.replace(/\.yaml$/, ''), manifest, owner)
}

/** What kubeadm waits for in an upgrade: the pod in the API has the hash of its manifest, and runs. */
async function mirror(program: string, manifest: string, owner: object): Promise<void> {
  const podName = `${program}-${name}`
  const hash = createHash('md5').update(manifest).digest('hex')
  const known = await kubectl(['-n', 'kube-system', 'get', 'pod', podName, '-o', 'json']).catch(() => '{}')
  if (JSON.parse(known).metadata?.annotations?.['kubernetes.io/config.hash'] === hash) return
  const flags = ['--force', '--grace-period=0', '--ignore-not-found']
  await kubectl(['-n', 'kube-system', 'delete', 'pod', podName, ...flags])
  const own = [...manifest.matchAll(/^ {4}(?<key>kubeadm\.kubernetes\.io\/[^:]+): (?<value>.*)$/gm)]
  const annotations = {
    ...Object.fromEntries(own.map(({ groups }) => [groups?.['key'], groups?.['value']])),
    'kubernetes.io/config.hash': hash,
    'kubernetes.io/config.mirror': hash,
    'kubernetes.io/config.source': 'file',
  }
  const labels = { component: program, tier: 'control-plane' }
  const pod = {
    ...{ apiVersion: 'v1', kind: 'Pod' },
    metadata: { name: podName, namespace: 'kube-system', labels, annotations, ownerReferences: [owner] },
    spec: { nodeName: name, hostNetwork: true, containers: [{ name: program, image: program }] },
  }
  const path = '/api/v1/namespaces/kube-system/pods'
  const made = JSON.parse(await kubectl(['create', '--raw', path, '-f', '-'], pod))
  made.status = { phase: 'Running', conditions: [{ type: 'Ready', status: 'True' }] }
  await kubectl(['replace', '--raw', `${path}/${podName}/status`, '-f', '-'], made)
}

const server = createServer((_request, response) => response.end('ok'))
server.listen(HEALTH_PORT, '127.0.0.1')
process.on('SIGTERM', () => {
  for (const { child } of pods.values()) child.kill('SIGKILL')
  process.exit(0)
})
for (;;) {
  look()
  if (existsSync(`${root}/kubelet.conf`)) {
    await register().catch((error: unknown) => process.stderr.write(`${error}\n`))
  }
  await pause(LOOK_MS)
}
