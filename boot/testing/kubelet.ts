// A kubelet without containers, for the tests of boot/node: runs what the static pods' manifests say as processes of this machine, starts
// again what ends or was changed, answers /healthz, and says that its Node is Ready.
//
// node kubelet.ts ROOT NAME VERSION LOGS. ROOT is /etc/kubernetes or stands for it. Ends with what it has started on SIGTERM.

import { type ChildProcess, execFile, spawn } from 'node:child_process'
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
}

const server = createServer((_request, response) => response.end('ok'))
server.listen(HEALTH_PORT, '127.0.0.1')
process.on('SIGTERM', () => {
  for (const { child } of pods.values()) child.kill('SIGKILL')
  process.exit(0)
})
for (;;) {
  look()
  if (existsSync(`${root}/kubelet.conf`)) await register().catch(() => undefined)
  await pause(LOOK_MS)
}
