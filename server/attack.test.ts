// An attacker on the LAN, with no credentials or with those of another machine, against the whole server: every route,
// every request of a machine said again, and paths that lead out. What it gets to read holds no secret.

import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { Agent as PlainAgent, request as plainRequest } from 'node:http'
import { Agent as TlsAgent, request as tlsRequest } from 'node:https'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { connect as connectTls } from 'node:tls'
import { promisify } from 'node:util'

import test from 'ava'

import { macToPath, parseMac } from '#lib/mac.ts'
import { seal } from '#sealing/age-file.ts'
import { type AttackedLan, HTTP_URL, SERVER_IP, startAttackedLan, TLS_URL } from '#testing/attacked-lan.ts'
import { everyPath, METHODS, type Names, walks } from '#testing/every-route.ts'
import { findSecrets, Loot } from '#testing/loot.ts'
import { type Credentials, lineOf, ProvedMachine, speak } from '#testing/proved-machine.ts'

const VICTIM = new ProvedMachine(parseMac('02:4b:69:74:00:01'), '10.77.0.50')
/** A machine like any other, in the hands of the attacker. */
const TRAITOR = new ProvedMachine(parseMac('02:4b:69:74:00:02'), '10.77.0.51')
const STRANGER = parseMac('02:4b:69:74:00:99')
const ATTACKER = '10.77.0.66'
/** For what an attacker says again, each on a connection of its own: more than one address may open beside all the rest. */
const REPLAYER = '10.77.0.67'
/** At the pace that the server takes TLS connections of one address. */
const ROOM_FOR_ONE_MS = 1000 / 32
const SECRET_FILE = `wireguard ${randomBytes(24).toString('hex')}`

let lan: AttackedLan
let names: Names
/** By name: none of them may be in anything that the attacker reads, or in the log. */
let secrets: Record<string, string>
const loot = new Loot()

const role = (machine: ProvedMachine) => `profiles/machines/${macToPath(machine.mac)}/role`

test.before(async () => {
  const files = {
    'profiles/defaults/boot': 'live\n',
    'profiles/roles/worker/root/etc/motd': 'public\n',
    [role(VICTIM)]: 'worker\n',
    [role(TRAITOR)]: 'worker\n',
  }
  lan = await startAttackedLan(files, [VICTIM.from, TRAITOR.from, ATTACKER, REPLAYER])
  const { recipient } = (await lan.api('/secrets/recipient')).body as { recipient: string }
  const folder = `profiles/machines/${macToPath(VICTIM.mac)}/secret/etc`
  await lan.write({ [`${folder}/wg.key.age`]: await seal(Buffer.from(SECRET_FILE), recipient) })
  const made = await lan.api('/tokens', { method: 'POST', body: { name: 'planted', role: 'admin' } })
  const token = made.body as { info: { id: string }; secret: string }
  await VICTIM.prove(lan)
  await TRAITOR.prove(lan)
  secrets = { file: SECRET_FILE, token: token.secret, ...(await privateKeys()) }
  names = {
    macs: [VICTIM.mac, TRAITOR.mac, STRANGER],
    boot: VICTIM.boot,
    bundle: VICTIM.bundle,
    tokenId: token.info.id,
  }
})

test.after.always(() => lan?.stop())

/** One line of each key is enough to know it by. */
async function privateKeys(): Promise<Record<string, string>> {
  const keys: Record<string, string> = { 'key of the machine': lineInside(VICTIM.credentials?.key ?? '') }
  for (const name of await readdir(join(lan.home, 'keys'))) {
    const text = await readFile(join(lan.home, 'keys', name), 'utf8').catch(() => '')
    if (/PRIVATE KEY/.test(text)) keys[name] = lineInside(text)
    const identity = /AGE-SECRET-KEY-[A-Z0-9]+/.exec(text)?.[0]
    if (identity !== undefined) keys[name] = identity
  }
  return keys
}

/** From the middle of an RSA key, for it begins with what is public; others are short. */
function lineInside(pem: string): string {
  const lines = pem.split('\n').filter((line) => /^[A-Za-z0-9+/=]+$/.test(line))
  return lines[lines.length < 10 ? 0 : lines.length >> 1] ?? ''
}

/** What an attacker must not change. What it may is only what anybody may say: that a machine was seen, and when. */
async function state(): Promise<string> {
  const paths = [
    '/channels',
    '/images',
    '/rollouts',
    '/quarantines',
    '/locks',
    '/config',
    '/roles',
    '/tokens',
  ]
  const answers = await Promise.all(paths.map((path) => lan.api(path)))
  const { body } = await lan.api('/machines')
  const { machines } = body as { machines: Record<string, unknown>[] }
  const kept = machines.filter(({ mac }) => mac !== STRANGER)
  const identities = (await lan.api('/identities')).body as { identities: unknown; approvals: unknown }
  // Who knows a request for a certificate gets one again: for the same key, so of use to nobody else.
  const volatile = ['lastSeenMs', 'address', 'firmware', 'certificateUntilMs']
  return JSON.stringify(
    [answers.map((answer) => answer.body), kept, identities.identities, identities.approvals],
    (key, value) => (volatile.includes(key) ? undefined : value),
    1,
  )
}

/** What anybody may have over HTTP, and over HTTPS besides. */
const PUBLIC = [
  /^(GET|HEAD) \/(boot|loaders|images|bundles|v2)\//,
  /^(GET|HEAD) \/(v1\/ca\.pem|v1\/time|healthz)$/,
]
/**
 * Progress is anybody's word. Who a machine is, is asked before it can have shown it, and whoever can name the attempt
 * may hear how it ended: with a certificate, which is no secret.
 */
const PUBLIC_WORDS = /^(POST \/v1\/machines\/[^/]+\/events|(GET|POST) \/v1\/machines\/[^/]+\/identity)/

const agents = {
  plain: new PlainAgent({ keepAlive: true, maxSockets: 4 }),
  tls: new TlsAgent({ keepAlive: true, maxSockets: 4, rejectUnauthorized: false }),
}

/** Resolves with 0 when the server gave no answer but an end. */
function ask(over: 'plain' | 'tls', { method, path, body }: { method: string; path: string; body?: string }) {
  const { promise, resolve } = Promise.withResolvers<number>()
  const { hostname, port } = new URL(over === 'tls' ? TLS_URL : HTTP_URL)
  const options = { hostname, port, method, path, localAddress: ATTACKER, agent: agents[over] }
  const request = over === 'tls' ? tlsRequest : plainRequest
  const sent = request(options, async (response) => {
    const chunks = await response.toArray().catch(() => [])
    loot.add(response.rawHeaders.join('\n'), ...chunks)
    resolve(response.statusCode ?? 0)
  })
  sent.on('error', () => resolve(0))
  sent.end(body)
  return promise
}

async function inParallel<Item>(items: readonly Item[], work: (item: Item) => Promise<void>): Promise<void> {
  const queue = items.values()
  await Promise.all(
    Array.from({ length: 4 }, async () => {
      for (const item of queue) await work(item)
    }),
  )
}

test.serial('a machine that has proved who it is gets its secrets, and another has none', async (t) => {
  const own = await VICTIM.install()
  t.is(own.status, 200, own.text)
  t.deepEqual(findSecrets(own.bytes, secrets), ['file'])
  for (const form of ['base64', 'hex'] as const) {
    const hidden = Buffer.from(`x${SECRET_FILE}y`).toString(form)
    t.deepEqual(findSecrets(Buffer.from(`"${hidden}"`), secrets), ['file'], 'it is found in disguise')
  }
  const others = await TRAITOR.install()
  t.false(others.bytes.includes(SECRET_FILE))
  t.is((await lan.api(`/machines/${VICTIM.mac}`)).status, 200)
})

for (const over of ['plain', 'tls'] as const) {
  test.serial(`no route and no method tells or changes anything without credentials (${over})`, async (t) => {
    const before = await state()
    const requests = everyPath(names).flatMap((path) => METHODS.map((method) => ({ method, path })))
    const wrong: string[] = []
    const statuses = new Map<number, number>()
    await inParallel(requests, async ({ method, path }) => {
      const hasBody = !['GET', 'HEAD', 'OPTIONS', 'TRACE'].includes(method)
      const status = await ask(over, { method, path, ...(hasBody && { body: '{}' }) })
      statuses.set(status, (statuses.get(status) ?? 0) + 1)
      const line = `${method} ${path}`
      const isPublic = PUBLIC.some((pattern) => pattern.test(line)) || PUBLIC_WORDS.test(line)
      if (status >= 500 || (status < 400 && status !== 0 && !isPublic)) wrong.push(`${line}: ${status}`)
    })
    t.deepEqual(wrong, [])
    t.log(`${requests.length} requests, by status:`, Object.fromEntries(statuses))
    t.is(await state(), before)
  })
}

test.serial('no path leads out of what is public, whatever way it is written', async (t) => {
  const wrong: string[] = []
  for (const over of ['plain', 'tls'] as const) {
    await inParallel(walks(names), async (target) => {
      const answer = await sayRaw(over, `GET ${target} HTTP/1.1\r\nHost: kit\r\nConnection: close\r\n\r\n`)
      const status = Number(/^HTTP\/1\.1 (\d+)/.exec(answer)?.[1] ?? 0)
      if (status >= 500 || (status !== 0 && status < 400)) wrong.push(`${over} ${target}: ${status}`)
    })
  }
  t.deepEqual(wrong, [])
})

async function sayRaw(over: 'plain' | 'tls', text: string): Promise<string> {
  const socket = await connectUntilTaken(over)
  const chunks: Buffer[] = []
  const { promise, resolve } = Promise.withResolvers<void>()
  socket.on('data', (bytes: Buffer) => chunks.push(bytes))
  socket.on('error', () => resolve())
  socket.on('close', () => resolve())
  socket.write(text, 'latin1')
  await promise
  loot.add(...chunks)
  return Buffer.concat(chunks).toString('latin1')
}

/** TLS connections of one address beyond some tens a second are cut: an attacker comes again when there is room. */
async function connectUntilTaken(over: 'plain' | 'tls'): Promise<Socket> {
  const where = { host: SERVER_IP, localAddress: ATTACKER }
  if (over === 'plain') return connect({ ...where, port: Number(new URL(HTTP_URL).port) })
  for (;;) {
    const port = Number(new URL(TLS_URL).port)
    const socket = connectTls({ ...where, port, rejectUnauthorized: false })
    const { promise, resolve } = Promise.withResolvers<boolean>()
    socket.once('secureConnect', () => resolve(true))
    socket.once('error', () => resolve(false))
    if (await promise) return socket
    await pause(ROOM_FOR_ONE_MS)
  }
}

test.serial('what a machine said is refused when somebody else says it again', async (t) => {
  const before = await state()
  const selfSigned = await makeSelfSigned()
  const speakers: readonly [name: string, over: 'plain' | 'tls', credentials: Credentials | undefined][] = [
    ['over plain HTTP', 'plain', undefined],
    ['over HTTPS without a certificate', 'tls', undefined],
    ['with the certificate of another machine', 'tls', TRAITOR.credentials],
    ['with a certificate of a CA of its own', 'tls', selfSigned],
  ]
  const heard: string[] = []
  const wrong: string[] = []
  for (const [name, over, credentials] of speakers) {
    for (const { method, path, body } of VICTIM.said) {
      const spoken = {
        method,
        path,
        ...(body !== undefined && { body }),
        ...(credentials && { credentials }),
      }
      const { status, bytes } = await speak({ ...spoken, over, from: REPLAYER })
      loot.add(bytes)
      const line = `${method} ${path}`
      const isPublic = PUBLIC.some((pattern) => pattern.test(line)) || PUBLIC_WORDS.test(line)
      if (status >= 500 || (status < 400 && !isPublic)) wrong.push(`${name}: ${line}: ${status}`)
      if (!isPublic) heard.push(`${name}: ${status}`)
    }
  }
  t.deepEqual(wrong, [])
  const counts = [...Map.groupBy(heard, (each) => each)].map(([each, { length }]) => [each, length])
  t.log(Object.fromEntries(counts))
  t.is(await state(), before)
})

async function makeSelfSigned(): Promise<Credentials> {
  const make = ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', '-', '-days', '2']
  const { stdout } = await promisify(execFile)('openssl', [...make, '-subj', '/CN=KatesKit CA'])
  const [key = '', cert = ''] = stdout.match(/-----BEGIN [\s\S]*?-----END [^\n]*\n/g) ?? []
  return { key, cert }
}

test.serial('a machine may not use another boot than its own, nor one that is over', async (t) => {
  const path = (machine: ProvedMachine, what: string) => `/v1/machines/${macToPath(machine.mac)}/${what}`
  const stolen = await TRAITOR.tls('GET', path(TRAITOR, `secrets?boot=${VICTIM.boot}`))
  loot.add(stolen.bytes)
  t.true(stolen.status >= 400, `${stolen.status}`)
  const checkIn = { boot: VICTIM.boot, phase: 'running' }
  const forged = await TRAITOR.tls('POST', path(TRAITOR, 'check-in'), checkIn)
  loot.add(forged.bytes)
  t.true(forged.status >= 400, `${forged.status}`)
  t.log(`secrets of another boot: ${stolen.text.slice(0, 200)}`)
  t.log(`check-in of another boot: ${forged.text.slice(0, 200)}`)
})

test.serial('what was refused is told, and the audit log is whole', async (t) => {
  const { body } = await lan.api(`/events?mac=${TRAITOR.mac}&limit=1000`)
  const kinds = new Set((body as { events: { kind: string }[] }).events.map(({ kind }) => kind))
  t.true(kinds.has('wrong-machine'), [...kinds].join(' '))
  const { entries, problem } = (await lan.api('/audit/verify')).body as { entries: number; problem?: unknown }
  t.is(problem, undefined)
  t.log(`${entries} entries in the audit log`)
})

test.serial('nothing that was planted is in what the attacker read, or in the log', async (t) => {
  t.log(`${loot.answers} answers, ${loot.sizeBytes} bytes`)
  t.true(Object.values(secrets).every((secret) => secret.length > 20))
  t.log('planted:', Object.keys(secrets).join(', '))
  t.true(loot.answers > 3000)
  t.deepEqual(loot.secretsIn(secrets), [])
  t.deepEqual(findSecrets(Buffer.from(await lan.log()), secrets), [])
  t.true(lan.isRunning())
  t.log('memory of the server:', await lan.memory())
})

test.serial('the machine goes on after all that', async (t) => {
  t.is((await VICTIM.checkIn('running')).status, 204)
  const target = await VICTIM.tls('GET', `/v1/machines/${macToPath(VICTIM.mac)}/target?boot=${VICTIM.boot}`)
  t.is(lineOf(target.text, 'good'), 'yes', target.text)
  for (const agent of Object.values(agents)) agent.destroy()
})
