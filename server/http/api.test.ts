// Tests of the API: who may, what is answered, what is refused.

import test from 'ava'

import { systemClock } from '#lib/clock.ts'
import { parseIpv4 } from '#lib/ipv4.ts'
import { parseMac } from '#lib/mac.ts'
import type { MachineView } from '#machine/ports.ts'
import { call, codeOf, curl, post, startHttpWithReleases, startHttpWithToken } from '#testing/http-fixture.ts'
import { callTls } from '#testing/tls-fixture.ts'

import { API_ROUTES } from './api-routes.ts'

const MAC = parseMac('52:54:00:12:34:56')
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

test('each route of the API wants a token, answers with one, and over the control socket without', async (t) => {
  const http = await startHttpWithReleases(t)
  const { tlsUrl, authority, api, socketFile, knowMachine, releases, imageStore, files, store } = http
  knowMachine(MACHINE)
  releases.quarantineViews.push({
    version: '2026.1',
    mac: MACHINE.mac,
    reason: 'it panics',
    sinceMs: 1,
    channels: [],
  })
  releases.updateLocks.push({ channel: 'stable', holder: 'fleetlock:one', sinceMs: 1 })
  files.setBundle('tar')
  imageStore.imports.set('import-1', { state: 'running', percent: 7, text: 'copying' })
  const bodies: Record<string, unknown> = {
    '/machines/:mac/role': { role: 'worker' },
    '/machines/:mac/pin': { version: '2026.1' },
    '/images/imports': { source: '/srv/image' },
    '/registry/imports': { source: '/srv/pause.tar' },
    '/channels/:channel': { version: '2026.1' },
    '/channels/:channel/pause': { paused: true },
    '/tokens': { name: 'x' },
    '/machines/:mac/pair': { code: 'K7M-2QX' },
    '/approvals': { mac: MAC },
    '/cluster/adopt': { kubeconfig: 'kind: Config' },
    '/etcd/restore': { sha256: 'ab'.repeat(32) },
  }
  const spare = await store.tokens.make({ name: 'spare', role: 'viewer' })
  for (const { method, path, status = 200 } of API_ROUTES) {
    const query = method === 'delete' && path === '/registry/images' ? '?name=pause:3.9' : ''
    const filled = `${path}${query}`
      .replace(':mac', '52-54-00-12-34-56')
      .replace(':version', '2026.1')
      .replace(':channel', 'stable')
      .replace(':id', path.startsWith('/tokens') ? spare.info.id : 'import-1')
      .replace(':holder', 'fleetlock:one')
      .replace(':ek', 'cd'.repeat(32))
    const body = method === 'put' || method === 'post' ? { body: JSON.stringify(bodies[path] ?? {}) } : {}
    const init = { method: method.toUpperCase(), ...body }
    const refused = await callTls(`${tlsUrl}/api/v1${filled}`, { ca: authority.pem, ...init })
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
  const { api, views, profiles, files, store, authority, caFile } = await startHttpWithToken(t)
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
    ['/ca', { pem: authority.pem, fingerprint: authority.fingerprint, file: caFile }],
    ['/roles', { roles: ['control-plane', 'worker'] }],
    ['/leases', { leases: [lease] }],
    ['/events', { events: [] }],
    ['/audit', { entries: [] }],
    ['/audit/verify', await store.audit.verify()],
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
  const { api, profiles } = await startHttpWithToken(t)
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
  const { api, tlsUrl, authority, store } = await startHttpWithToken(t)
  const made = (await api('/tokens', post({ name: 'phone' }))).body as {
    secret: string
    info: { id: string }
  }
  const headers = { authorization: `bearer ${made.secret}` }
  const answer = await callTls(`${tlsUrl}/api/v1/roles`, { ca: authority.pem, headers })
  t.is(answer.status, 200)
  t.false(JSON.stringify((await api('/tokens')).body).includes(made.secret.slice(17)))
  const [event] = await store.events.list({ limit: 1 })
  t.like(event, { kind: 'token-made', data: { token: made.info.id } })
  t.is(codeOf(await api('/tokens', post({ name: 'x'.repeat(70_000) }))), 'too-large')
})

test('wrong paths, methods, queries and machines are JSON errors with the right status', async (t) => {
  const { api, url } = await startHttpWithToken(t)
  const cases: [path: string, method: string, status: number][] = [
    ['/nothing', 'GET', 404],
    ['/machines/52-54-00-12-34-56', 'GET', 404],
    ['/machines/52-54-00-12-34-56', 'PUT', 405],
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
  const { api, views } = await startHttpWithToken(t)
  views.list = () => Promise.reject(new Error('password is hunter2'))
  const answer = await api('/machines')
  t.is(answer.status, 500)
  t.false(JSON.stringify(answer.body).includes('hunter2'))
})

test('an address that guesses tokens has to wait, even with the right one', async (t) => {
  const clock = { ...systemClock, monotonicMs: () => 0 }
  const { api } = await startHttpWithToken(t, { clock })
  const guess = () => api('/roles', { headers: { authorization: `Bearer kit_${'0'.repeat(12)}_x` } })
  for (let n = 0; n < 10; n++) t.is((await guess()).status, 401)
  const refused = await guess()
  t.is(refused.status, 429)
  t.true(Number(refused.headers.get('retry-after')) > 0)
  t.is((await api('/roles')).status, 429)
})
