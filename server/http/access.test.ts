// Tests of who may do what at the API, what of it is written down, and what becomes of tokens over plain HTTP.

import { once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import { Agent, get } from 'node:https'

import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'

import type { Clock } from '#lib/clock.ts'
import { systemClock } from '#lib/clock.ts'
import { type Log, silentLog } from '#lib/log.ts'
import { TOKEN_ROLES, type TokenInfo, type TokenRole } from '#machine/access-ports.ts'
import { call, codeOf, curl, post, startHttpWithReleases, startHttpWithToken } from '#testing/http-fixture.ts'
import { callTls } from '#testing/tls-fixture.ts'
import { TurnedClock } from '#testing/turned-clock.ts'

import type { ApiRoute } from './api-route.ts'
import { API_ROUTES } from './api-routes.ts'

const PATH = '/machines/52-54-00-12-34-56'
/** Every role a route asks for: the table of docs/ports-and-endpoints.md, told the other way round. */
const FOR_ADMINS = [
  'GET /tokens',
  'POST /tokens',
  'DELETE /tokens/:id',
  'GET /audit',
  'GET /audit/verify',
  'GET /machines/:mac/secrets',
  'DELETE /machines/:mac',
  'DELETE /cluster',
  'POST /cluster/kubeconfig',
  'POST /cluster/adopt',
  'GET /etcd/snapshots',
  'POST /etcd/restore',
]

function roleOf({ method, path }: ApiRoute): TokenRole {
  if (FOR_ADMINS.includes(`${method.toUpperCase()} ${path}`)) return 'admin'
  return method === 'get' ? 'viewer' : 'operator'
}

const filled = (path: string) => path.replace(':mac', '52-54-00-12-34-56').replaceAll(/:\w+/g, '2026.1')

function keptAlive(t: ExecutionContext): Agent {
  const agent = new Agent({ keepAlive: true, maxSockets: 8 })
  t.teardown(() => agent.destroy())
  return agent
}

interface Made {
  readonly info: TokenInfo
  readonly secret: string
}

async function startWithRoles(t: ExecutionContext) {
  const http = await startHttpWithReleases(t)
  const make = (role: TokenRole) => http.store.tokens.make({ name: role, role })
  const made: Record<TokenRole, Made> = {
    viewer: await make('viewer'),
    operator: await make('operator'),
    admin: await make('admin'),
  }
  const agent = keptAlive(t)
  const as = (role: TokenRole, path: string, init: { method?: string; body?: string } = {}) =>
    callTls(`${http.tlsUrl}/api/v1${path}`, {
      ...{ ca: http.authority.pem, agent, ...init },
      headers: { authorization: `Bearer ${made[role].secret}` },
    })
  return { ...http, made, as }
}

test('no route can be used by a role below the one it needs, and each by all others', async (t) => {
  const { as } = await startWithRoles(t)
  for (const route of API_ROUTES) {
    const needed = roleOf(route)
    const methods = route.method === 'get' ? ['GET', 'HEAD'] : [route.method.toUpperCase()]
    for (const method of methods) {
      for (const role of TOKEN_ROLES) {
        const body = method === 'PUT' || method === 'POST' ? { body: '{}' } : {}
        const answer = await as(role, filled(route.path), { method, ...body })
        const what = `${role}: ${method} ${route.path}`
        if (TOKEN_ROLES.indexOf(role) >= TOKEN_ROLES.indexOf(needed)) {
          t.not(answer.status, 401, what)
          t.not(codeOf(answer), 'forbidden', what)
        } else {
          t.is(answer.status, 403, what)
          if (method === 'HEAD') continue
          t.is(codeOf(answer), 'forbidden', what)
          t.true(JSON.stringify(answer.body).includes(`--role ${needed}`), what)
        }
      }
    }
  }
})

test('what a role may not do is not done, however its path is written', async (t) => {
  const { as, profiles, store } = await startWithRoles(t)
  const body = '{"role":"worker","name":"x"}'
  for (const path of ['', '/', '//', '?x=y', '%2f', ';x']) {
    for (const [method, base] of [
      ['PUT', `${PATH}/role`],
      ['POST', '/tokens'],
    ]) {
      const { status } = await as('viewer', `${base}${path}`, { method: `${method}`, body })
      t.true([403, 404].includes(status), `${base}${path} ${status}`)
    }
  }
  t.is(profiles.assigned.size, 0)
  t.is((await store.tokens.list()).length, 4)
})

test('no request of a viewer changes anything or shows what is for admins, whatever its path and method', async (t) => {
  const { as, profiles, store, releases } = await startWithRoles(t)
  const path = fc
    .tuple(
      fc.constantFrom(...API_ROUTES.map((route) => filled(route.path))),
      fc.array(
        fc.tuple(
          fc.nat(80),
          fc.nat(3),
          fc.constantFrom('/', '//', '%2f', '.', '../', '?', ';', '%00', 'A', ''),
        ),
        {
          maxLength: 3,
        },
      ),
    )
    .map(([text, edits]) =>
      edits.reduce((whole, [where, removed, added]) => {
        const at = where % (whole.length + 1)
        return whole.slice(0, at) + added + whole.slice(at + removed)
      }, text),
    )
  const method = fc.constantFrom('GET', 'HEAD', 'PUT', 'POST', 'DELETE', 'PATCH', 'OPTIONS', 'PROPFIND')
  const body = '{"role":"worker","name":"x","version":"2026.1","paused":true,"persistence":true}'
  await fc.assert(
    fc.asyncProperty(path, method, async (target, verb) => {
      const answer = await as('viewer', target, { method: verb, body })
      t.true(['GET', 'HEAD'].includes(verb) || answer.status >= 400, `${verb} ${target} ${answer.status}`)
      t.notRegex(JSON.stringify(answer.body), /"(tokens|entries|head|files)":/, `${verb} ${target}`)
    }),
    { numRuns: 500 },
  )
  t.is(profiles.assigned.size, 0)
  t.deepEqual(releases.calls, [])
  t.is((await store.tokens.list()).length, 4)
})

test('a token has the role and the end it was made with, and is refused once revoked', async (t) => {
  const { api, tlsUrl, authority, store } = await startHttpWithToken(t)
  const make = async (body: object) => (await api('/tokens', post(body))).body as Made
  const plain = await make({ name: 'phone' })
  t.is(plain.info.role, 'viewer')
  t.is(plain.info.expiresMs, undefined)
  const short = await make({ name: 'ci', role: 'operator', days: 7 })
  t.is((short.info.expiresMs ?? 0) - short.info.createdMs < 7 * 86_400_000 + 60_000, true)
  const use = ({ secret }: Made) =>
    callTls(`${tlsUrl}/api/v1/roles`, {
      ca: authority.pem,
      headers: { authorization: `Bearer ${secret}` },
    })
  t.is((await use(short)).status, 200)
  const revoked = await api(`/tokens/${short.info.id}`, { method: 'DELETE' })
  t.like(revoked.body, { id: short.info.id, role: 'operator' })
  t.is((await use(short)).status, 401)
  const { tokens } = (await api('/tokens')).body as { tokens: TokenInfo[] }
  t.is(typeof tokens.find(({ id }) => id === short.info.id)?.revokedMs, 'number')
  t.is((await api('/tokens/0123456789ab', { method: 'DELETE' })).status, 404)
  t.deepEqual(
    (await store.events.list({ limit: 9 })).map(({ kind }) => kind),
    ['token-made', 'token-made', 'token-revoked'],
  )
  for (const wrong of [
    { name: '' },
    { name: 'a\u001b[2Jb' },
    { name: 'a\u202eb' },
    { name: 'x', role: 'root' },
    { name: 'x', days: 0 },
    { name: 'x', days: 1.5 },
    { name: 'x', days: '7' },
  ]) {
    t.is(codeOf(await api('/tokens', post(wrong))), 'invalid-input', JSON.stringify(wrong))
  }
})

test('every change is in the audit log: by whom, of what, how it ended, and no secret', async (t) => {
  const { as, made, store, socketFile, releases } = await startWithRoles(t)
  const operator = `token operator (${made.operator.info.id})`
  const put = { method: 'PUT', body: '{"role":"worker"}' }
  await as('operator', `${PATH}/role`, put)
  await as('operator', `${PATH}/role`, { ...put, body: '{"role":"nobody"}' })
  await as('operator', `${PATH}/role`, { ...put, body: '{"password":"hunter2"}' })
  await as('viewer', `${PATH}/role`, put)
  const source = 'https://user:hunter2@images.example/kit?key=hunter2'
  await as('operator', '/images/imports', post({ source, channel: 'stable' }))
  const token = (await as('admin', '/tokens', post({ name: 'new', role: 'operator', days: 1 }))).body as Made
  await curl('--unix-socket', socketFile, '-X', 'DELETE', `http://kit/api/v1/tokens/${token.info.id}`)
  releases.failure = new Error('hunter2')
  await as('operator', '/channels/stable', { method: 'PUT', body: '{"version":"2026.1"}' })
  await as('viewer', '/machines') // reading is no change

  const { entries } = (await as('admin', '/audit')).body as { entries: Record<string, unknown>[] }
  const role = { action: 'PUT /machines/:mac/role', target: '52-54-00-12-34-56' }
  const expected = [
    { actor: operator, ...role, outcome: 'done', detail: 'role=worker' },
    { actor: operator, ...role, outcome: 'not-found', detail: 'role=nobody' },
    { actor: operator, ...role, outcome: 'invalid-input', detail: '' },
    { actor: `token viewer (${made.viewer.info.id})`, ...role, outcome: 'forbidden' },
    { action: 'POST /images/imports', detail: 'source=https://images.example/kit channel=stable' },
    { action: 'POST /tokens', target: token.info.id, detail: 'name=new role=operator days=1' },
    { actor: 'control socket', action: 'DELETE /tokens/:id', target: token.info.id, outcome: 'done' },
    { action: 'PUT /channels/:channel', target: 'stable', outcome: 'internal' },
  ]
  t.is(entries.length, expected.length)
  for (const [index, entry] of expected.entries()) t.like(entries[index], entry)
  const all = JSON.stringify(entries)
  t.false(all.includes('hunter2'))
  for (const { secret } of [token, made.admin, made.operator]) t.false(all.includes(secret.slice(17)))

  const verdict = (await as('admin', '/audit/verify')).body
  t.like(verdict, { entries: expected.length, head: entries.at(-1)?.['hash'] })
  const remembered = entries[2]?.['hash']
  t.like((await as('admin', `/audit/verify?head=${remembered}`)).body, { rememberedId: 3 })
  t.is(codeOf(await as('admin', '/audit/verify?head=x')), 'invalid-input')
  t.is((await store.audit.verify()).problem, undefined)
})

test('a change that cannot be written down is an error', async (t) => {
  const filledStore = await startHttpWithToken(t)
  const { audit } = filledStore.store
  const { api } = await startHttpWithToken(t, {
    audit: { ...audit, append: () => Promise.reject(new Error('no room')) },
  })
  t.is((await api(`${PATH}/role`, { method: 'PUT', body: '{"role":"worker"}' })).status, 500)
})

test('the API refuses every request over plain HTTP, and says loudly whose token came that way', async (t) => {
  const warnings: string[] = []
  const log: Log = { ...silentLog, warn: (_fields, message) => warnings.push(message) }
  const { url, tlsPort, store, secret, headers, service } = await startHttpWithToken(t, { log })
  const [token] = await store.tokens.list()
  const fix = `use https://127.0.0.1:${tlsPort}/api/v1`
  const refusals = new Set<string>()
  for (const authorization of [
    headers.authorization,
    headers.authorization,
    `${headers.authorization}x`,
    'Bearer x',
  ]) {
    const answer = await call(`${url}/api/v1/machines`, { headers: { authorization } })
    t.is(answer.status, 403)
    t.like(answer.body, { error: { code: 'forbidden', fix } })
    refusals.add(JSON.stringify(answer.body))
  }
  t.is(refusals.size, 1, 'nobody learns which token is real')
  t.regex([...refusals].join(), /revoke it/)
  for (const method of ['PUT', 'POST', 'DELETE', 'OPTIONS', 'HEAD']) {
    t.is((await call(`${url}/api/v1/tokens`, { method })).status, 403, method)
  }
  t.is((await call(`${url}/api/v1/`)).status, 403)
  const events = await store.events.list({ limit: 10 })
  t.deepEqual(
    events.map(({ kind, data }) => [kind, data['token']]),
    [['token-exposed', token?.id]],
  )
  t.is(warnings.filter((text) => text.includes('revoke')).length, 1)
  await service.stop()
  const entries = await store.audit.list({ limit: 10 })
  t.deepEqual(
    entries.map(({ action, target }) => [action, target]),
    [
      ['token-exposed', token?.id],
      ['token-exposed', token?.id],
    ],
  )
  t.regex(entries[1]?.detail ?? '', /; 1 such within a minute$/)
  for (const text of [JSON.stringify([events, entries]), ...warnings])
    t.false(text.includes(secret.slice(17)))
})

test('a flood of wrong tokens leaves few entries in the audit log, and the right one works', async (t) => {
  const turned = new TurnedClock(Date.now())
  const clock: Clock = {
    ...systemClock,
    // The clock of the tally only: a minute.
    after: (ms, action) => (ms === 60_000 ? turned : systemClock).after(ms, action),
  }
  const { api, tlsUrl, authority, store, secret, service } = await startHttpWithToken(t, { clock })
  const agent = keptAlive(t)
  const guess = () =>
    callTls(`${tlsUrl}/api/v1/roles`, {
      ...{ ca: authority.pem, agent },
      headers: { authorization: `Bearer ${secret.slice(0, -2)}AA` },
    })
  for (let n = 0; n < 9; n++) await guess()
  t.is((await api('/roles')).status, 200)
  const before = process.memoryUsage().heapUsed
  for (let n = 0; n < 100; n++) await Promise.all(Array.from({ length: 50 }, guess))
  t.log(`heap ${Math.round((process.memoryUsage().heapUsed - before) / 1024)} KiB more after 5,000 guesses`)
  turned.turn(60_000)
  await service.stop()
  const login = { actor: 'anonymous 127.0.0.1', action: 'login', target: secret.slice(4, 16) }
  const entries = await store.audit.list({ limit: 10 })
  t.is(entries.length, 2)
  t.like(entries[0], { ...login, outcome: 'unauthorized', detail: 'a wrong token' })
  t.like(entries[1], { ...login, outcome: 'too-many-requests' })
  t.regex(entries[1]?.detail ?? '', /; 5008 such within a minute$/)
})

test('a reader of events hears no more once its token is revoked', async (t) => {
  const beats: (() => void)[] = []
  const clock: Clock = {
    ...systemClock,
    after(ms, action) {
      if (ms !== 15_000) return systemClock.after(ms, action)
      beats.push(action)
      return () => {}
    },
  }
  const { tlsUrl, authority, headers, store } = await startHttpWithToken(t, { clock })
  const request = get(`${tlsUrl}/api/v1/events`, {
    ca: authority.pem,
    headers: { ...headers, accept: 'text/event-stream' },
  })
  const [response] = (await once(request, 'response')) as [IncomingMessage]
  const [token] = await store.tokens.list()
  await store.tokens.revoke(token?.id ?? '')
  const ended = once(response, 'end')
  response.resume()
  beats.shift()?.()
  await ended
  t.is(beats.length, 0)
})
