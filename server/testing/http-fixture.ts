// A running HTTP service on free ports of 127.0.0.1 (plain and TLS) and a control socket, with a real store and fakes behind.

import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

import type { ExecutionContext } from 'ava'

import { loadBootScripts } from '#http/boot-scripts.ts'
import { createHttpService, type HttpServiceOptions } from '#http/http-service.ts'
import { systemClock } from '#lib/clock.ts'
import { silentLog } from '#lib/log.ts'
import { type Mac, parseMac } from '#lib/mac.ts'
import type { Authority } from '#machine/identity-ports.ts'
import { MachineAudit } from '#machine/machine-audit.ts'
import type { MachineView } from '#machine/ports.ts'
import { openStore, type Store } from '#store/store.ts'
import { createTpmVerifier } from '#tpm/verifier.ts'

import { createIdentityBooks, createIdentityDomain } from '../identity-domain.ts'

import { FakeClusters, FakeNodeDesk } from './fake-cluster.ts'
import { FakeIdentities } from './fake-identities.ts'
import { FakeDesk, FakeFiles, FakeProfiles, FakeViews } from './fake-parts.ts'
import { FakeRegistry } from './fake-registry.ts'
import { FakeImageStore, FakePowerwashes, FakeReleases } from './fake-releases.ts'
import { secretParts } from './fake-secrets.ts'
import { SERVER } from './registry-fixture.ts'
import { machineKeys, TestMachine } from './test-machine.ts'
import { callTls, type TlsInit, testTls } from './tls-fixture.ts'

export type HttpFixture = Awaited<ReturnType<typeof startHttp>>

/** Everything is stopped and removed when the test ends. */
export async function startHttp(t: ExecutionContext, overrides: Partial<HttpServiceOptions> = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'kit-http-'))
  const store = await openStore({ file: join(folder, 'kit.db'), clock: systemClock, log: silentLog })
  const desk = new FakeDesk()
  const views = new FakeViews()
  const profiles = new FakeProfiles()
  const files = new FakeFiles(folder)
  const socketFile = join(folder, 'kit.sock')
  const { authority, source: tls } = await testTls()
  const caFile = join(folder, 'ca.pem')
  writeFileSync(caFile, authority.pem)
  const identityDomain = identityParts({ store, profiles, authority })
  const service = createHttpService({
    ...identityDomain,
    listen: [FREE_PORT, { ...FREE_PORT, tls }, { socketFile, isTrusted: true }],
    desk,
    views,
    profiles,
    problems: () => profiles.problems(),
    bundles: files,
    images: files,
    ...releaseParts(),
    ...secretParts(),
    ...{ nodeDesk: new FakeNodeDesk(), clusters: new FakeClusters() },
    ...{ events: store.events, leases: store.leases, tokens: store.tokens, audit: store.audit },
    serverConfig: () => [{ key: 'http/port', value: '8080', source: 'default' }],
    scripts: await loadBootScripts('boot/ipxe', SERVER),
    isFleetLockOn: true,
    connectionsPerAddress: 256,
    isKnownAddress: () => false,
    ca: { pem: authority.pem, fingerprint: authority.fingerprint, file: caFile },
    challengeAnswer: () => undefined,
    version: '1.2.3',
    clock: systemClock,
    log: silentLog,
    ...overrides,
  })
  t.teardown(async () => {
    await service.stop()
    await store.close()
    rmSync(folder, { recursive: true, force: true })
  })
  await service.start()
  const port = service.address()?.port ?? 0
  const tlsPort = service.tlsAddress()?.port ?? 0
  const tlsUrl = `https://127.0.0.1:${tlsPort}`
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    /** `caFile` is what its certificate comes from; `authority` signs clients' certificates. */
    tlsUrl,
    tlsPort,
    caFile,
    authority,
    folder,
    socketFile,
    store,
    desk,
    views,
    profiles,
    files,
    service,
    ...identityDomain,
    ...machinesOf(tlsUrl, authority),
  }
}

const releaseParts = () => ({
  ...{ releases: new FakeReleases(), powerwashes: new FakePowerwashes([]) },
  imageStore: new FakeImageStore(),
})

const FREE_PORT = { address: '127.0.0.1', port: 0 }

const MAC = parseMac('52:54:00:12:34:56')

function identityParts({ store, profiles, authority }: IdentityParts) {
  const { book, attempts } = createIdentityBooks({ store: store.identities, clock: systemClock })
  return createIdentityDomain({
    ...{ book, attempts, profiles, authority, events: store.events },
    audit: new MachineAudit(store.audit, systemClock),
    tpm: createTpmVerifier({ clock: systemClock, log: silentLog }),
    roster: { welcome: async () => {} },
    clock: systemClock,
    onChange: () => {},
  })
}

interface IdentityParts {
  readonly store: Store
  readonly profiles: FakeProfiles
  readonly authority: Authority
}

function machinesOf(tlsUrl: string, { pem: ca, fingerprint: caFingerprint }: Authority) {
  const newMachine = async (mac: Mac = MAC, { keys = 0, macs = [mac] }: NewMachine = {}) =>
    new TestMachine({ tlsUrl, ca, caFingerprint, mac, macs, keys: await machineKeys(keys) })
  /** With its certificate, by the rule mac-only unless the test has set another. */
  const machine = async (mac?: Mac, options?: NewMachine) => {
    const made = await newMachine(mac, options)
    await made.prove()
    return made
  }
  return { newMachine, machine }
}

interface NewMachine {
  /** Which of the process's keys. */
  readonly keys?: number
  readonly macs?: readonly Mac[]
}

/** The same with an admin token; `api` uses it, over HTTPS. */
export async function startHttpWithToken(t: ExecutionContext, overrides: Partial<HttpServiceOptions> = {}) {
  const http = await startHttp(t, overrides)
  const { secret } = await http.store.tokens.make({ name: 'test', role: 'admin' })
  const headers = { authorization: `Bearer ${secret}` }
  const ca = http.authority.pem
  const api = (path: string, init: Omit<TlsInit, 'ca'> = {}) =>
    callTls(`${http.tlsUrl}/api/v1${path}`, { ca, ...init, headers: { ...headers, ...init.headers } })
  return { ...http, secret, headers, api }
}

/** With channels, powerwashes and an image store behind it, which know the image 2026.1 and the channel stable. */
export async function startHttpWithReleases(t: ExecutionContext) {
  const releases = new FakeReleases()
  const imageStore = new FakeImageStore()
  const machines: MachineView[] = []
  const powerwashes = new FakePowerwashes(machines)
  releases.versions.push(IMAGE)
  releases.views.set(CHANNEL.name, CHANNEL)
  releases.rolloutViews = [ROLLOUT]
  const people = new FakeIdentities()
  const registry = new FakeRegistry()
  const http = await startHttpWithToken(t, {
    releases,
    imageStore,
    powerwashes,
    registry,
    identities: people,
  })
  const knowMachine = (view: MachineView) => {
    machines.push(view)
    http.views.machines.push(view)
  }
  return { ...http, releases, imageStore, powerwashes, knowMachine, people }
}

const IMAGE = {
  version: '2026.1',
  arch: 'amd64',
  sizeBytes: 200_000_000,
  importedMs: 1_700_000_000_000,
  epoch: 1,
  channels: ['stable'],
  machines: [],
}
const CHANNEL = {
  name: 'stable',
  version: '2026.1',
  previous: ['2025.9'],
  isPaused: false,
  changedMs: 1_700_000_000_000,
  machines: [],
}
const ROLLOUT = {
  channel: 'stable',
  version: '2026.1',
  state: 'running' as const,
  atOnce: 1,
  haltAfter: 1,
  done: [],
  updating: [],
  waiting: [],
  failed: [],
}

/** Runs curl quietly and resolves with what it printed; rejects when it fails. */
export async function curl(...args: readonly string[]): Promise<string> {
  const { stdout } = await promisify(execFile)('curl', ['-sS', '--max-time', '20', ...args], {
    maxBuffer: 64 * 1024 * 1024,
  })
  return stdout
}

export interface Answer {
  readonly status: number
  readonly headers: Headers
  /** Parsed when it is JSON, else text. */
  readonly body: unknown
}

export async function call(url: string, init: RequestInit = {}): Promise<Answer> {
  const response = await fetch(url, init)
  const text = await response.text()
  const isJson = response.headers.get('content-type') === 'application/json'
  return {
    status: response.status,
    headers: response.headers,
    body: isJson && text !== '' ? JSON.parse(text) : text,
  }
}

export const post = (body: unknown) => ({ method: 'POST', body: JSON.stringify(body) })

/** The code of an error answer. */
export const codeOf = ({ body }: Answer) => (body as { error?: { code?: string } }).error?.code
