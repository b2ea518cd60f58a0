// A LAN with the whole server on it as a process of its own, and room for machines that are known and for attackers.

import { type ChildProcess, spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

import { createUnixFetch, type UnixAnswer } from './control-socket.ts'
import { type Lan, makeLan } from './lan.ts'
import { enterOwnNetwork, ip } from './own-network.ts'

export const SERVER_IP = '10.77.0.1'
export const HTTP_URL = `http://${SERVER_IP}:8080`
export const TLS_URL = `https://${SERVER_IP}:8443`
export const IMAGE = '0.1.0'
/** Large enough that a client which does not read leaves most of it with the server. */
const ROOT_BYTES = 24 << 20
const MAIN = fileURLToPath(new URL('../main.ts', import.meta.url))

export type Files = Readonly<Record<string, string | Uint8Array>>

export interface Memory {
  readonly nowMiB: number
  readonly peakMiB: number
}

export interface AttackedLan {
  readonly lan: Lan
  readonly home: string
  /** Of the image: public. */
  readonly root: Buffer
  /** As an admin, over the control socket. */
  api(path: string, init?: { method?: string; body?: unknown }): Promise<UnixAnswer>
  write(files: Files): Promise<void>
  /** All that the server has written to its log. */
  log(): Promise<string>
  memory(): Promise<Memory>
  isRunning(): boolean
  stop(): Promise<void>
}

const sha256 = (bytes: string | Uint8Array) => createHash('sha256').update(bytes).digest('hex')

/** `addresses` are more of this side's own, for attackers that speak TCP from many. Ends the server when it is stopped. */
export async function startAttackedLan(files: Files, addresses: readonly string[]): Promise<AttackedLan> {
  await enterOwnNetwork()
  const lan = await makeLan('br0', `${SERVER_IP}/24`)
  for (const address of addresses) await ip(`address add ${address}/24 dev br0`)
  const home = await mkdtemp(join(tmpdir(), 'kit-attack-'))
  const root = randomBytes(ROOT_BYTES)
  await writeFiles(home, { ...imageFiles(root), ...files })
  const logFile = join(home, 'server.log')
  const child = await startServer(home, logFile)
  const fetchUnix = createUnixFetch(join(home, 'control'))
  const lanOf: AttackedLan = {
    ...{ lan, home, root },
    api: (path, init) => fetchUnix(`/api/v1${path}`, init),
    write: (more) => writeFiles(home, more),
    log: () => readFile(logFile, 'utf8'),
    memory: () => memoryOf(child),
    isRunning: () => child.exitCode === null && child.signalCode === null,
    async stop() {
      if (lanOf.isRunning()) {
        const ended = once(child, 'exit')
        child.kill('SIGTERM')
        await ended
      }
      lan.stop()
      await rm(home, { recursive: true, force: true })
    },
  }
  await answers(lanOf, () => fetchUnix('/healthz'))
  return lanOf
}

/** Files hold their own names, but for the root image. */
function imageFiles(root: Buffer): Files {
  const contents = new Map<string, string | Buffer>(
    ['vmlinuz', 'initrd.img', 'ipxe/snponly.efi'].map((name) => [name, name.repeat(20_000)]),
  )
  contents.set('root.squashfs', root)
  const files = [...contents].map(([name, bytes]) => {
    return { name, sizeBytes: bytes.length, sha256: sha256(bytes) }
  })
  const manifest = {
    version: IMAGE,
    arch: 'amd64',
    recipeDigest: '0'.repeat(64),
    sourceDateEpoch: 1,
    files,
  }
  contents.set('manifest.json', JSON.stringify(manifest))
  return Object.fromEntries([...contents].map(([name, bytes]) => [`images/${IMAGE}/${name}`, bytes]))
}

async function writeFiles(home: string, files: Files): Promise<void> {
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(home, name)), { recursive: true })
    await writeFile(join(home, name), content)
  }
}

async function startServer(home: string, logFile: string): Promise<ChildProcess> {
  const settings = {
    KATESKIT_DHCP_INTERFACE: 'br0',
    KATESKIT_DHCP_MODE: 'server',
    KATESKIT_DHCP_POOL: '10.77.0.100-10.77.0.139',
    KATESKIT_PROFILES_DIRECTORY: join(home, 'profiles'),
    KATESKIT_IMAGES_DIRECTORY: join(home, 'kept-images'),
    KATESKIT_IMAGES_IMPORT: join(home, 'images'),
    KATESKIT_KEYS_DIRECTORY: join(home, 'keys'),
    KATESKIT_STATE_DIRECTORY: join(home, 'state'),
    KATESKIT_BUNDLES_DIRECTORY: join(home, 'bundles'),
    KATESKIT_HTTP_CONTROL_SOCKET: join(home, 'control'),
    KATESKIT_LOG_LEVEL: 'debug',
    KATESKIT_LOG_FORMAT: 'json',
  }
  const others = Object.entries(process.env).filter(([name]) => !name.startsWith('KATESKIT_'))
  const log = await open(logFile, 'a')
  try {
    // Ends with this thread, however that ends.
    return spawn('setpriv', ['--pdeathsig', 'KILL', process.execPath, MAIN, 'serve'], {
      stdio: ['ignore', log.fd, log.fd],
      env: { ...Object.fromEntries(others), ...settings },
    })
  } finally {
    await log.close()
  }
}

async function answers(lan: AttackedLan, health: () => Promise<UnixAnswer>): Promise<void> {
  for (let tries = 0; tries < 600; tries++) {
    const answer = await health().catch(() => undefined)
    if (answer?.status === 200) return
    if (!lan.isRunning()) throw new Error(`The server ended:\n${await lan.log()}`)
    await pause(100)
  }
  throw new Error(`The server does not answer:\n${await lan.log()}`)
}

/** proc_pid_status(5): resident memory, and its peak. */
async function memoryOf({ pid }: ChildProcess): Promise<Memory> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8')
  const mebibytes = (name: string) => {
    const kibibytes = Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1])
    return Math.round(kibibytes / 1024)
  }
  return { nowMiB: mebibytes('VmRSS'), peakMiB: mebibytes('VmHWM') }
}
