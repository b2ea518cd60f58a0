import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { statSync, writeFileSync } from 'node:fs'
import { get, type IncomingMessage } from 'node:http'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'

import test, { type ExecutionContext } from 'ava'

import type { Clock } from '#lib/clock.ts'
import { systemClock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import { parseIpv4 } from '#lib/ipv4.ts'
import { parseMac } from '#lib/mac.ts'
import { SseParser } from '#lib/sse.ts'
import type { MachineView } from '#machine/ports.ts'
import { curl, type HttpFixture, startHttp } from '#testing/http-fixture.ts'

import { API_ROUTES } from './api-routes.ts'

const MAC = parseMac('52:54:00:12:34:56')
const DIGEST = 'ab'.repeat(32)
const BOOT_PATH = '/boot/52-54-00-12-34-56.ipxe'
const MACHINE: MachineView = {
  mac: MAC,
  state: 'running',
  stateSinceMs: 1,
  firstSeenMs: 1,
  lastSeenMs: 2,
  rebootReasons: [],
  role: 'worker',
  channel: 'stable',
  hostname: 'kit-12-34-56',
}

interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly body: unknown
}

async function call(url: string, init: RequestInit = {}): Promise<Answer> {
  const response = await fetch(url, init)
  const text = await response.text()
  const isJson = response.headers.get('content-type') === 'application/json'
  return { status: response.status, headers: response.headers, body: isJson ? JSON.parse(text) : text }
}

const codeOf = ({ body }: Answer) => (body as { error?: { code?: string } }).error?.code

async function start(t: ExecutionContext, options: Parameters<typeof startHttp>[1] = {}) {
  const http = await startHttp(t, options)
  const { secret } = await http.store.tokens.make('test', 'admin')
  const headers = { authorization: `Bearer ${secret}` }
  const api = (path: string, init: RequestInit = {}) =>
    call(`${http.url}/api/v1${path}`, { ...init, headers: { ...headers, ...init.headers } })
  return { ...http, secret, headers, api }
}

const post = (body: unknown): RequestInit => ({ method: 'POST', body: JSON.stringify(body) })

test('each route of the API wants a token, answers with one, and over the control socket without', async (t) => {
  const { url, api, socketFile, views, files } = await start(t)
  views.machines.push(MACHINE)
  files.setBundle('tar')
  const bodies: Record<string, unknown> = {
    '/machines/:mac/role': { role: 'worker' },
    '/tokens': { name: 'x' },
  }
  for (const { method, path, status = 200 } of API_ROUTES) {
    const filled = path.replace(':mac', '52-54-00-12-34-56')
    const body = method === 'get' ? {} : { body: JSON.stringify(bodies[path]) }
    const init = { method: method.toUpperCase(), ...body }
    const refused = await call(`${url}/api/v1${filled}`, init)
    t.is(refused.status, 401, path)
    t.is(refused.headers.get('www-authenticate'), 'Bearer realm="kateskit"')
    t.is((await api(filled, init)).status, status, path)
    const data = init.body === undefined ? [] : ['-d', init.body]
    const trusted = await curl(
      '--unix-socket',
      socketFile,
      '-X',
      init.method,
      ...data,
      '-w',
      '%{http_code}',
      `http://kit/api/v1${filled}`,
    )
    t.true(trusted.endsWith(`${status}`), path)
  }
})

test('answers of the API say what docs/ports-and-endpoints.md says', async (t) => {
  const { api, views, profiles, files, store } = await start(t)
  views.machines.push(MACHINE)
  const bundle = files.setBundle('tar')
  const lease = {
    ip: parseIpv4('10.0.0.9'),
    clientKey: `mac:${MAC}`,
    mac: MAC,
    expiresMs: 7,
    kind: 'leased' as const,
  }
  await store.leases.put(lease)
  const problems = profiles.problems()
  const bodies: [path: string, body: unknown][] = [
    ['/machines', { machines: [MACHINE] }],
    ['/machines/52:54:00:12:34:56', MACHINE],
    ['/machines/525400123456/config', { values: profiles.explain(MAC), problems }],
    ['/machines/525400123456/overlay', { digest: bundle.digest, files: [] }],
    ['/config', { values: [{ key: 'http/port', value: '8080', source: 'default' }], problems }],
    ['/roles', { roles: ['control-plane', 'worker'] }],
    ['/leases', { leases: [lease] }],
    ['/events', { events: [] }],
    ['/tokens', { tokens: await store.tokens.list() }],
  ]
  for (const [path, body] of bodies) {
    const answer = await api(path)
    t.deepEqual(answer.body, JSON.parse(JSON.stringify(body)), path)
    t.is(answer.headers.get('cache-control'), 'no-store')
    t.is(answer.headers.get('x-content-type-options'), 'nosniff')
    t.is(answer.headers.get('x-powered-by'), null)
  }
})

test('PUT role assigns it, and refuses one that is not there or no name', async (t) => {
  const { api, profiles } = await start(t)
  const put = (body: string) => api('/machines/52-54-00-12-34-56/role', { method: 'PUT', body })
  t.deepEqual((await put('{"role":"worker"}')).body, { mac: MAC, role: 'worker' })
  t.is(profiles.assigned.get(MAC), 'worker')
  t.is(codeOf(await put('{"role":"nobody"}')), 'not-found')
  for (const body of [
    '{"role":"../etc"}',
    '{"role":""}',
    '{"role":7}',
    '{}',
    '[]',
    'null',
    'role=worker',
    '',
  ]) {
    t.is(codeOf(await put(body)), 'invalid-input', body)
  }
})

test('POST tokens makes one that works, shown once', async (t) => {
  const { api, url, store } = await start(t)
  const made = (await api('/tokens', post({ name: 'phone' }))).body as {
    secret: string
    info: { id: string }
  }
  const answer = await call(`${url}/api/v1/roles`, { headers: { authorization: `bearer ${made.secret}` } })
  t.is(answer.status, 200)
  t.false(JSON.stringify((await api('/tokens')).body).includes(made.secret.slice(17)))
  const [event] = await store.events.list({ limit: 1 })
  t.like(event, { kind: 'token-made', data: { token: made.info.id } })
  t.is(codeOf(await api('/tokens', post({ name: 'x'.repeat(70_000) }))), 'too-large')
})

test('wrong paths, methods, queries and machines are JSON errors with the right status', async (t) => {
  const { api, url } = await start(t)
  const cases: [path: string, method: string, status: number][] = [
    ['/nothing', 'GET', 404],
    ['/machines/52-54-00-12-34-56', 'GET', 404],
    ['/machines/52-54-00-12-34-56', 'DELETE', 405],
    ['/machines/nonsense', 'GET', 400],
    ['/machines/%zz', 'GET', 400],
    ['/machines/52-54-00-12-34-56/overlay', 'GET', 503],
    ['/Machines', 'GET', 404],
    ['/events?limit=1001', 'GET', 400],
    ['/events?after=-1', 'GET', 400],
    ['/events?mac=x', 'GET', 400],
    ['/tokens', 'PUT', 405],
  ]
  for (const [path, method, status] of cases) {
    const answer = await api(path, { method })
    t.is(answer.status, status, path)
    t.is(typeof codeOf(answer), 'string')
  }
  t.is((await api('/tokens', { method: 'PUT' })).headers.get('allow'), 'GET, POST')
  t.deepEqual((await call(`${url}/healthz`)).body, { status: 'ok', version: '1.2.3' })
  t.is((await call(`${url}/healthz/x`)).status, 404)
})

test('an internal error shows nothing of its cause', async (t) => {
  const { api, views } = await start(t)
  views.list = () => Promise.reject(new Error('password is hunter2'))
  const answer = await api('/machines')
  t.is(answer.status, 500)
  t.false(JSON.stringify(answer.body).includes('hunter2'))
})

test('an address that guesses tokens has to wait, even with the right one', async (t) => {
  const { api, url } = await start(t, { clock: { ...systemClock, monotonicMs: () => 0 } })
  const guess = () =>
    call(`${url}/api/v1/roles`, { headers: { authorization: `Bearer kit_${'0'.repeat(12)}_x` } })
  for (let n = 0; n < 10; n++) t.is((await guess()).status, 401)
  const refused = await guess()
  t.is(refused.status, 429)
  t.true(Number(refused.headers.get('retry-after')) > 0)
  t.is((await api('/roles')).status, 429)
})

interface Stream {
  readonly response: IncomingMessage
  /** Resolves with the ids of the next so many events. */
  next(count: number): Promise<(string | undefined)[]>
}

async function stream(
  { url, headers }: { url: string; headers: object },
  path: string,
  extra: object = {},
): Promise<Stream> {
  const request = get(`${url}/api/v1/events${path}`, {
    headers: { ...headers, accept: 'text/event-stream', ...extra },
  })
  const [response] = (await once(request, 'response')) as [IncomingMessage]
  const parser = new SseParser()
  const chunks = response.setEncoding('utf8')[Symbol.asyncIterator]()
  const ready: (string | undefined)[] = []
  return {
    response,
    async next(count) {
      while (ready.length < count) {
        const { value, done } = await chunks.next()
        if (done) break
        ready.push(...parser.push(value).map(({ id }) => id))
      }
      return ready.splice(0, count)
    },
  }
}

const numbers = (first: number, last: number) =>
  Array.from({ length: last - first + 1 }, (_, n) => `${first + n}`)

async function addEvents({ store }: Pick<HttpFixture, 'store'>, count: number): Promise<void> {
  const add = () => store.events.append({ kind: 'server-started', mac: MAC, message: 'x'.repeat(100) })
  await Promise.all(Array.from({ length: count }, add))
}

test('the event stream resumes after Last-Event-ID, without a gap or a double while events pour in', async (t) => {
  const http = await start(t)
  await addEvents(http, 1_700)
  const pouring = addEvents(http, 800)
  const resumed = await stream(http, '', { 'last-event-id': '40' })
  t.is(resumed.response.headers['content-type'], 'text/event-stream')
  const more = addEvents(http, 500)
  t.deepEqual(await resumed.next(2_960), numbers(41, 3_000))
  await Promise.all([pouring, more])
  resumed.response.destroy()
})

test('the event stream begins with the next event, or after the one asked for, of one machine if asked', async (t) => {
  const http = await start(t)
  await addEvents(http, 3)
  const fresh = await stream(http, '')
  const after = await stream(http, '?after=2')
  const other = await stream(http, '?after=0&mac=52-54-00-00-00-01')
  await http.store.events.append({ kind: 'server-started', message: 'of no machine' })
  await http.store.events.append({ kind: 'step-done', mac: parseMac('52:54:00:00:00:01'), message: '' })
  t.deepEqual(await fresh.next(2), ['4', '5'])
  t.deepEqual(await after.next(3), ['3', '4', '5'])
  t.deepEqual(await other.next(1), ['5'])
  for (const { response } of [fresh, after, other]) response.destroy()
})

test('the event stream beats while nothing happens, and ends when the service stops', async (t) => {
  const timers: (() => void)[] = []
  const clock: Clock = {
    ...systemClock,
    after(delayMs, action) {
      if (delayMs !== 15_000) return systemClock.after(delayMs, action)
      timers.push(action)
      return () => {}
    },
  }
  const http = await start(t, { clock })
  const { response } = await stream(http, '')
  timers.shift()?.()
  const [beat] = await once(response, 'data')
  t.regex(`${beat}`, /^: .+\n\n/)
  t.is(timers.length, 1)
  const ended = once(response, 'end')
  response.resume()
  await http.service.stop()
  await ended
})

test('a reader of events that does not read is cut off', async (t) => {
  const http = await start(t)
  const socket: Socket = connect(http.port, '127.0.0.1')
  socket.write(
    `GET /api/v1/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nAuthorization: ${http.headers.authorization}\r\n\r\n`,
  )
  await once(socket, 'data')
  socket.pause()
  const closed = once(socket, 'close')
  socket.on('error', () => {})
  const add = () =>
    http.store.events.append({ kind: 'step-failed', message: '', data: { log: 'x'.repeat(15_000) } })
  for (let n = 0; n < 10; n++) await Promise.all(Array.from({ length: 100 }, add))
  socket.resume()
  await closed
  t.pass()
})

test('a machine gets its script, and the desk hears what its query tells', async (t) => {
  const sent: string[] = []
  const { url, desk } = await start(t, { onScriptSent: (mac) => sent.push(mac) })
  desk.plan = { kind: 'local-disk', reason: 'no role yet' }
  const uuid = '4C4C4544-0000-1111-2222-333344445555'
  const efi = await curl(`${url}${BOOT_PATH}?uuid=${uuid}&platform=efi&buildarch=x86_64`)
  t.regex(efi, /^#!ipxe\n[\s\S]*no role yet/)
  await curl(`${url}/boot/52:54:00:12:34:56.ipxe?uuid=00000000-0000-0000-0000-000000000000&platform=pcbios`)
  await curl(`${url}${BOOT_PATH}`)
  const address = '127.0.0.1'
  t.deepEqual(desk.calls, [
    ['offerBoot', MAC, { firmware: 'uefi-x64', uuid: uuid.toLowerCase(), address }],
    ['offerBoot', MAC, { firmware: 'bios', address }],
    ['offerBoot', MAC, { address }],
  ])
  t.deepEqual(sent, [MAC, MAC, MAC])
  t.regex(await curl(`${url}/boot/autoexec.ipxe`), /^#!ipxe\n/)
  for (const name of ['x.ipxe', '52-54-00-12-34-56', 'ff-ff-ff-ff-ff-ff.ipxe', '']) {
    t.is(codeOf(await call(`${url}/boot/${name}`)), 'invalid-input', name)
  }
  t.is((await fetch(`${url}${BOOT_PATH}`, { method: 'HEAD' })).status, 405)
})

test('a machine is told to wait when the server is in trouble', async (t) => {
  const { url, desk } = await start(t)
  desk.failure = new KitError('no-space', 'Cannot use the database: the disk is full')
  t.regex(await curl(`${url}${BOOT_PATH}`), /waiting: Cannot use the database: the disk is full/)
  desk.failure = new Error('secret cause')
  t.notRegex(await curl(`${url}${BOOT_PATH}`), /secret/)
})

test('machines report and check in; what is not as it should be is refused with the field at fault', async (t) => {
  const { url, desk } = await start(t)
  const to = (what: string, body: unknown) => call(`${url}/v1/machines/52-54-00-12-34-56/${what}`, post(body))
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

test('a body that never ends is refused at the limit', async (t) => {
  const { port } = await start(t)
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
  const { url, desk } = await start(t)
  const target = (query: string) => call(`${url}/v1/machines/52-54-00-12-34-56/target?${query}`)
  t.is((await target('bundle=')).status, 204)
  desk.wanted = { imageVersion: '7', bundleDigest: DIGEST }
  const text = `image 7\nbundle ${DIGEST}\n`
  t.is((await target('')).body, text)
  t.is((await target('bundle=old&wait=60')).body, text)
  t.is((await target(`bundle=${DIGEST}&wait=0`)).body, text)
  const waiting = target(`bundle=${DIGEST}&wait=60`)
  await desk.listening(1)
  desk.change({ imageVersion: '7', bundleDigest: DIGEST })
  desk.change({ imageVersion: '8', bundleDigest: 'cd'.repeat(32) })
  t.is((await waiting).body, `image 8\nbundle ${'cd'.repeat(32)}\n`)
  t.is(desk.listeners.size, 0)
  for (const wait of ['61', '-1', '1.5', 'x']) t.is((await target(`wait=${wait}`)).status, 400, wait)
})

test('a machine that stops waiting for its target leaves nothing behind, nor does a stop of the service', async (t) => {
  const { url, desk, service } = await start(t, { stallMs: 1_000 })
  desk.wanted = { imageVersion: '7', bundleDigest: DIGEST }
  const path = `${url}/v1/machines/52-54-00-12-34-56/target?bundle=${DIGEST}`
  t.is((await call(`${path}&wait=2`)).status, 200, 'waiting is no stall')
  const leaving = get(`${path}&wait=60`)
  leaving.on('error', () => {})
  await desk.listening(1)
  leaving.destroy()
  await desk.listening(0)
  const waiting = call(`${path}&wait=60`)
  await desk.listening(1)
  await service.stop()
  t.is((await waiting).status, 200)
})

test('start() refuses a port in use, an address that is not here, and says which setting helps', async (t) => {
  const { port } = await start(t)
  const inUse = await t.throwsAsync(startHttp(t, { listen: [{ address: '127.0.0.1', port }] }), {
    instanceOf: KitError,
  })
  t.is(inUse?.message, `Cannot listen on 127.0.0.1:${port}: it is in use`)
  t.like(inUse, { code: 'conflict', fix: 'stop the other program, or set http/port' })
  const elsewhere = await t.throwsAsync(startHttp(t, { listen: [{ address: '192.0.2.1', port: 0 }] }))
  t.like(elsewhere, { code: 'invalid-input', fix: 'set http/address' })
})

test('start() removes the socket of a dead server, and refuses that of a live one', async (t) => {
  const { folder, socketFile } = await start(t)
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
