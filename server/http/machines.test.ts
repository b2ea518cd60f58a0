import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { statSync, writeFileSync } from 'node:fs'
import { get } from 'node:https'
import { connect } from 'node:net'
import { join } from 'node:path'

import test from 'ava'

import { KitError } from '#lib/errors.ts'
import { parseMac } from '#lib/mac.ts'
import type { Target } from '#machine/ports.ts'
import { call, codeOf, curl, type HttpFixture, startHttp } from '#testing/http-fixture.ts'

const MAC = parseMac('52:54:00:12:34:56')
const DIGEST = 'ab'.repeat(32)
const BOOT_PATH = '/boot/52-54-00-12-34-56.ipxe'

async function speaker(machine: HttpFixture['machine']) {
  const own = await machine(MAC)
  const { keySha256 } = own.options.keys
  return { to: (what: string, body: unknown) => own.say(what, body), keySha256 }
}

const wants = (wanted: Pick<Target, 'imageVersion' | 'bundleDigest'>): Target => ({
  ...wanted,
  mayStage: false,
  mayReboot: false,
  isGood: true,
  powerwash: false,
  secretsKept: 'persist',
  kubernetes: 'worker',
  snapshotSeconds: 3600,
  isMirrored: false,
  rateKiBps: 0,
  arguments: '',
})

test('a machine gets its script, and the desk hears what its query tells', async (t) => {
  const sent: string[] = []
  const { url, desk } = await startHttp(t, { onScriptSent: (mac) => sent.push(mac) })
  desk.plan = { kind: 'local-disk', reason: 'no role yet' }
  const uuid = '4C4C4544-0000-1111-2222-333344445555'
  const efi = await curl(`${url}${BOOT_PATH}?uuid=${uuid}&platform=efi&buildarch=x86_64`)
  t.regex(efi, /^#!ipxe\n[\s\S]*no role yet/)
  await curl(`${url}/boot/52:54:00:12:34:56.ipxe?uuid=00000000-0000-0000-0000-000000000000&platform=pcbios`)
  await curl(`${url}${BOOT_PATH}`)
  await curl(`${url}${BOOT_PATH}?want=powerwash`)
  await curl(`${url}${BOOT_PATH}?want=recover`)
  await curl(`${url}${BOOT_PATH}?want=anything`)
  await curl(`${url}${BOOT_PATH}?want=`)
  const address = '127.0.0.1'
  t.deepEqual(desk.calls, [
    ['offerBoot', MAC, { firmware: 'uefi-x64', uuid: uuid.toLowerCase(), address }],
    ['offerBoot', MAC, { firmware: 'bios', address }],
    ['offerBoot', MAC, { address }],
    ['offerBoot', MAC, { address }, 'powerwash'],
    ['offerBoot', MAC, { address }, 'recover'],
    ['offerBoot', MAC, { address }],
    ['offerBoot', MAC, { address }],
  ])
  t.deepEqual(sent, [MAC, MAC, MAC, MAC, MAC, MAC, MAC])
  t.regex(await curl(`${url}/boot/autoexec.ipxe`), /^#!ipxe\n/)
  for (const name of ['x.ipxe', '52-54-00-12-34-56', 'ff-ff-ff-ff-ff-ff.ipxe', '']) {
    t.is(codeOf(await call(`${url}/boot/${name}`)), 'invalid-input', name)
  }
  t.is((await fetch(`${url}${BOOT_PATH}`, { method: 'HEAD' })).status, 405)
})

test('a machine is told to wait when the server is in trouble', async (t) => {
  const { url, desk } = await startHttp(t)
  desk.failure = new KitError('no-space', 'Cannot use the database: the disk is full')
  t.regex(await curl(`${url}${BOOT_PATH}`), /waiting: Cannot use the database: the disk is full/)
  desk.failure = new Error('secret cause')
  t.notRegex(await curl(`${url}${BOOT_PATH}`), /secret/)
})

test('machines report and check in; what is not as it should be is refused with the field at fault', async (t) => {
  const { desk, machine } = await startHttp(t)
  const { to, keySha256 } = await speaker(machine)
  const report = { boot: 'b', step: '40-image', status: 'failed', seconds: 1.5, message: 'm', log: 'l\nl' }
  const checkIn = {
    boot: 'b',
    phase: 'running',
    image: '7',
    bundle: DIGEST,
    address: '10.0.0.9',
    rebootReasons: ['x'],
  }
  t.is((await to('events', { ...report, unknown: 1 })).status, 204)
  t.is((await to('check-in', checkIn)).status, 204)
  t.is((await to('check-in', { boot: 'b', phase: 'starting' })).status, 204)
  t.deepEqual(desk.calls, [
    ['report', MAC, report],
    ['checkIn', MAC, checkIn],
    ['checkIn', MAC, { boot: 'b', phase: 'starting' }],
  ])
  t.deepEqual(desk.speakers, [keySha256, keySha256, keySha256])
  const bad: [what: string, body: unknown, said: RegExp][] = [
    ['events', { ...report, step: 'Bad Step' }, /step/],
    ['events', { ...report, status: 'maybe' }, /status/],
    ['events', { ...report, seconds: 'many' }, /seconds/],
    ['events', { ...report, message: null }, /message/],
    ['check-in', { ...checkIn, address: '10.0.0.256' }, /address/],
    ['check-in', { ...checkIn, bundle: '../x' }, /bundle/],
    ['check-in', { phase: 'running' }, /boot/],
  ]
  for (const [what, body, said] of bad) {
    const answer = await to(what, body)
    t.is(codeOf(answer), 'invalid-input')
    t.regex(JSON.stringify(answer.body), said)
  }
  t.is(codeOf(await to('events', { ...report, log: 'x'.repeat(17_000) })), 'too-large')
  t.is(codeOf(await to('nothing', {})), 'not-found')
  desk.failure = new KitError('stale-boot', 'Cannot believe this check-in')
  t.is((await to('check-in', checkIn)).status, 409)
})

test("a machine's words lose what a terminal would obey", async (t) => {
  const { desk, machine } = await startHttp(t)
  const { to } = await speaker(machine)
  const report = { boot: 'b', step: 's', status: 'failed' }
  await to('events', { ...report, message: 'red \u001b[31m\nü\u009b', log: 'one\r\n\ttwo\u0007' })
  await to('check-in', { boot: 'b', phase: 'running', image: '7\u001b', rebootReasons: ['a\nb'] })
  t.deepEqual(desk.calls, [
    ['report', MAC, { ...report, message: 'red  [31m ü ', log: 'one \n\ttwo ' }],
    ['checkIn', MAC, { boot: 'b', phase: 'running', image: '7 ', rebootReasons: ['a b'] }],
  ])
})

test('a body that never ends is refused at the limit', async (t) => {
  const { port } = await startHttp(t)
  const socket = connect(port, '127.0.0.1')
  socket.on('error', () => {})
  socket.write(
    'POST /v1/machines/525400123456/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n',
  )
  const pour = () => {
    while (socket.writable && socket.write(`4000\r\n${'x'.repeat(0x4000)}\r\n`));
  }
  socket.on('drain', pour)
  pour()
  let said = ''
  socket.on('data', (chunk) => {
    said += chunk
  })
  await new Promise((resolve) => socket.once('close', resolve))
  t.regex(said, /^HTTP\/1\.1 413/)
})

test('the target is told at once when it differs, and as soon as it changes for one who waits', async (t) => {
  const { desk, machine } = await startHttp(t)
  const own = await machine(MAC)
  const target = (query: string) => own.call(`target?${query}`)
  t.is((await target('bundle=')).status, 204)
  desk.wanted = wants({ imageVersion: '7', bundleDigest: DIGEST })
  const text = new RegExp(`\\nimage 7\\nbundle ${DIGEST}\\n`)
  t.regex(`${(await target('')).body}`, text)
  t.regex(`${(await target('bundle=old&wait=60')).body}`, text)
  t.regex(`${(await target(`bundle=${DIGEST}&wait=0`)).body}`, text)
  const waiting = target(`bundle=${DIGEST}&wait=60`)
  await desk.listening(1)
  desk.change(wants({ imageVersion: '7', bundleDigest: DIGEST }))
  desk.change(wants({ imageVersion: '8', bundleDigest: 'cd'.repeat(32) }))
  t.regex(`${(await waiting).body}`, /^tag [0-9a-f]{16}\nimage 8\nbundle (?:cd){32}\n/)
  t.is(desk.listeners.size, 0)
  for (const wait of ['61', '-1', '1.5', 'x']) t.is((await target(`wait=${wait}`)).status, 400, wait)
})

test('a machine that stops waiting for its target leaves nothing behind, nor does a stop of the service', async (t) => {
  const { tlsUrl, authority, desk, service, machine } = await startHttp(t, { stallMs: 1_000 })
  const own = await machine(MAC)
  desk.wanted = wants({ imageVersion: '7', bundleDigest: DIGEST })
  const path = `target?bundle=${DIGEST}`
  t.is((await own.call(`${path}&wait=2`)).status, 200, 'waiting is no stall')
  const tls = { ca: authority.pem, key: own.options.keys.key, cert: own.certificate ?? '' }
  const leaving = get(`${tlsUrl}/v1/machines/52-54-00-12-34-56/${path}&wait=60`, tls)
  leaving.on('error', () => {})
  await desk.listening(1)
  leaving.destroy()
  await desk.listening(0)
  const waiting = own.call(`${path}&wait=60`)
  await desk.listening(1)
  await service.stop()
  t.is((await waiting).status, 200)
})

test('start() refuses a port in use, an address that is not here, and says which setting helps', async (t) => {
  const { port } = await startHttp(t)
  const inUse = await t.throwsAsync(startHttp(t, { listen: [{ address: '127.0.0.1', port }] }), {
    instanceOf: KitError,
  })
  t.is(inUse?.message, `Cannot listen on 127.0.0.1:${port}: it is in use`)
  t.like(inUse, { code: 'conflict', fix: 'stop the other program, or set http/port' })
  const elsewhere = await t.throwsAsync(startHttp(t, { listen: [{ address: '192.0.2.1', port: 0 }] }))
  t.like(elsewhere, { code: 'invalid-input', fix: 'set http/address' })
})

test('start() removes the socket of a dead server, and refuses that of a live one', async (t) => {
  const { folder, socketFile } = await startHttp(t)
  t.is(statSync(socketFile).mode & 0o777, 0o600)
  const on = (file: string) => startHttp(t, { listen: [{ socketFile: file, isTrusted: true }] })
  t.like(await t.throwsAsync(on(socketFile)), { code: 'conflict' })

  const file = join(folder, 'plain')
  writeFileSync(file, 'precious')
  t.like(await t.throwsAsync(on(file)), { code: 'conflict' })
  t.is(statSync(file).size, 8)

  const stale = join(folder, 'stale.sock')
  const holder = spawn(
    process.execPath,
    ['-e', `net.createServer().listen('${stale}', () => console.log('up'))`],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  )
  await once(holder.stdout, 'data')
  holder.kill('SIGKILL')
  await once(holder, 'exit')
  await on(stale)
  t.regex(await curl('--unix-socket', stale, 'http://kit/healthz'), /"ok"/)
})
