// The API of images, channels, rollouts, pins and powerwashes, and the lock that other tools share.

import test from 'ava'

import { KitError } from '#lib/errors.ts'
import { parseMac } from '#lib/mac.ts'
import type { MachineView } from '#machine/ports.ts'
import { FakeImageStore, FakeReleases } from '#testing/fake-releases.ts'
import {
  type Answer,
  call,
  codeOf,
  curl,
  post,
  startHttp,
  startHttpWithReleases,
  startHttpWithToken,
} from '#testing/http-fixture.ts'

const MAC = parseMac('52:54:00:12:34:56')
const MACHINE: MachineView = {
  ...{ mac: MAC, state: 'running', stateSinceMs: 1, firstSeenMs: 1, lastSeenMs: 2, rebootReasons: [] },
  ...{ role: 'worker', channel: 'stable', hostname: 'kit-12-34-56' },
}
const PATH = '/machines/52-54-00-12-34-56'

const put = (body: unknown) => ({ method: 'PUT', body: JSON.stringify(body) })
const remove = { method: 'DELETE' }
const errorOf = ({ body }: Answer) => (body as { error: { message: string; fix?: string } }).error

test('a plan is told, and a powerwash is asked for and taken back', async (t) => {
  const { api, powerwashes, knowMachine } = await startHttpWithReleases(t)
  knowMachine(MACHINE)
  powerwashes.view = { plan: 'install', lines: ['disk vda: new'], disks: [] }
  t.deepEqual((await api(`${PATH}/plan`)).body, powerwashes.view)
  t.like((await api(`${PATH}/powerwash`, { method: 'POST' })).body, { powerwash: { persistence: 'keep' } })
  t.like((await api(`${PATH}/powerwash`, post({ persistence: true }))).body, {
    mac: MAC,
    powerwash: { requestedMs: 5, persistence: 'wipe' },
  })
  await api(`${PATH}/powerwash`, post({ persistence: false }))
  t.deepEqual((await api(`${PATH}/powerwash`, remove)).body, MACHINE)
  t.deepEqual(powerwashes.calls, [
    ['request', MAC, 'keep'],
    ['request', MAC, 'wipe'],
    ['request', MAC, 'keep'],
    ['cancel', MAC],
  ])
  t.is(codeOf(await api(`${PATH}/powerwash`, post({ persistence: 'yes' }))), 'invalid-input')
  t.is((await api('/machines/52-54-00-00-00-99/powerwash', post({}))).status, 404)
  t.is((await api('/machines/52-54-00-00-00-99/plan')).status, 404)
  t.is((await api('/machines/x/powerwash', post({}))).status, 400)
})

test('a machine is pinned to a version that is there, and unpinned', async (t) => {
  const { api, releases } = await startHttpWithReleases(t)
  t.deepEqual((await api(`${PATH}/pin`, put({ version: '2026.1' }))).body, { mac: MAC, pin: '2026.1' })
  t.deepEqual((await api(`${PATH}/pin`, remove)).body, { mac: MAC })
  t.deepEqual(releases.calls, [
    ['pin', MAC, '2026.1'],
    ['pin', MAC, undefined],
  ])
  const unknown = await api(`${PATH}/pin`, put({ version: '2026.2' }))
  t.is(unknown.status, 404)
  t.is(errorOf(unknown).fix, 'there are: 2026.1')
  for (const body of [{}, { version: 7 }, []]) t.is((await api(`${PATH}/pin`, put(body))).status, 400)
})

test('images are listed, verified and removed, each by a version that is there', async (t) => {
  const { api, releases, imageStore } = await startHttpWithReleases(t)
  t.deepEqual((await api('/images')).body, { images: JSON.parse(JSON.stringify(releases.versions)) })
  t.like((await api('/images/2026.1')).body, { version: '2026.1', channels: ['stable'] })
  imageStore.problems = ['root.squashfs: another sha256']
  t.deepEqual((await api('/images/2026.1/verify', { method: 'POST' })).body, {
    version: '2026.1',
    problems: ['root.squashfs: another sha256'],
  })
  t.deepEqual((await api('/images/2026.1', remove)).body, { version: '2026.1' })
  releases.failure = new KitError('conflict', 'Cannot remove 2026.1: the channel stable uses it')
  t.is((await api('/images/2026.1', remove)).status, 409)
  releases.failure = undefined
  const near = errorOf(await api('/images/2026.2'))
  t.is(near.message, 'Cannot find image "2026.2" (did you mean 2026.1?)')
  t.is(near.fix, 'kateskit image list shows those there are')
  for (const [path, init] of [
    ['/images/7', {}],
    ['/images/7', remove],
    ['/images/7/verify', { method: 'POST' }],
    ['/images/%00', {}],
  ] as const) {
    t.is((await api(path, init)).status, 404, path)
  }
})

test('a verification may take longer than a connection may be silent', async (t) => {
  const imageStore = new FakeImageStore()
  const releases = new FakeReleases()
  const { api } = await startHttpWithToken(t, { imageStore, releases, stallMs: 1_000 })
  releases.versions.push({
    ...{ version: '1', arch: 'amd64', sizeBytes: 1, importedMs: 0, epoch: 0, channels: [], machines: [] },
  })
  imageStore.verify = () => new Promise((resolve) => setTimeout(() => resolve([]), 2_500))
  const { body } = await api('/images/1/verify', { method: 'POST' })
  t.deepEqual(body, { version: '1', problems: [] })
})

test('an import is started and followed; the promotion after it belongs to it', async (t) => {
  const { api, releases, imageStore } = await startHttpWithReleases(t)
  const started = await api('/images/imports', post({ source: '/srv/image.tar' }))
  t.is(started.status, 202)
  t.deepEqual(started.body, { id: 'import-1' })
  t.deepEqual((await api('/images/imports/import-1')).body, {
    ...{ state: 'running', percent: 7, text: 'copying /srv/image.tar' },
  })
  t.is((await api('/images/imports/import-9')).status, 404)

  imageStore.importDone = async () => '2026.1'
  await api('/images/imports', post({ source: 'http://mirror/image', channel: 'beta' }))
  imageStore.imports.set('import-2', { state: 'done', percent: 100, text: 'imported', version: '2026.1' })
  t.like((await api('/images/imports/import-2')).body, { state: 'done', version: '2026.1' })
  t.deepEqual(releases.calls, [['promote', '2026.1', 'beta']])

  releases.failure = new KitError('conflict', 'Cannot promote 2026.1: it is in quarantine', { fix: 'retry' })
  await api('/images/imports', post({ source: '/srv/3', channel: 'rc' }))
  imageStore.imports.set('import-3', { state: 'done', percent: 100, text: 'imported', version: '2026.1' })
  t.deepEqual((await api('/images/imports/import-3')).body, {
    ...{ state: 'failed', percent: 100, text: '2026.1 is here; rc does not point at it' },
    ...{ error: 'Cannot promote 2026.1: it is in quarantine', fix: 'retry' },
  })
  for (const body of [{}, { source: '' }, { source: '/x', channel: '../x' }, { source: 'x'.repeat(5000) }]) {
    t.is((await api('/images/imports', post(body))).status, 400, JSON.stringify(body).slice(0, 40))
  }
})

test('an import whose promotion goes on is not done yet', async (t) => {
  const { api, releases, imageStore } = await startHttpWithReleases(t)
  const promoted = Promise.withResolvers<never>()
  imageStore.importDone = async () => '2026.1'
  releases.promote = () => promoted.promise
  await api('/images/imports', post({ source: '/srv/1', channel: 'beta' }))
  imageStore.imports.set('import-1', { state: 'done', percent: 100, text: 'imported', version: '2026.1' })
  t.like((await api('/images/imports/import-1')).body, { state: 'running', text: 'promoting to beta' })
  promoted.reject(new Error('secret'))
  await t.throwsAsync(promoted.promise)
  const failed = await api('/images/imports/import-1')
  t.like(failed.body, { state: 'failed' })
  t.false(JSON.stringify(failed.body).includes('secret'))
})

test('a channel is promoted and paused', async (t) => {
  const { api, releases } = await startHttpWithReleases(t)
  t.like((await api('/channels')).body, { channels: [{ name: 'stable', version: '2026.1' }] })
  t.like((await api('/channels/beta', put({ version: '2026.1' }))).body, { name: 'beta', version: '2026.1' })
  t.like((await api('/channels/beta/pause', post({ paused: true }))).body, { name: 'beta', isPaused: true })
  t.is((await api('/channels/nothing/pause', post({ paused: true }))).status, 404)
  t.is((await api('/channels/beta', put({ version: '2027.1' }))).status, 404)
  releases.failure = new KitError('conflict', 'Cannot promote 2026.1: it is in quarantine')
  t.is((await api('/channels/beta', put({ version: '2026.1' }))).status, 409)
  for (const [path, init] of [
    ['/channels/..%2Fetc', put({ version: '2026.1' })],
    ['/channels/Beta', put({ version: '2026.1' })],
    ['/channels/beta', put({})],
    ['/channels/beta/pause', post({})],
    ['/channels/beta/pause', post({ paused: 'yes' })],
  ] as const) {
    t.is(codeOf(await api(path, init)), 'invalid-input', path)
  }
})

test('a rollout is shown, paused, resumed and tried again', async (t) => {
  const { api, releases } = await startHttpWithReleases(t)
  t.like((await api('/rollouts')).body, { rollouts: [{ channel: 'stable', state: 'running' }] })
  for (const what of ['pause', 'resume', 'retry']) {
    t.like((await api(`/rollouts/stable/${what}`, { method: 'POST' })).body, { channel: 'stable' }, what)
  }
  t.deepEqual(releases.calls, [
    ['pause', 'stable', true],
    ['pause', 'stable', false],
    ['retry', 'stable'],
  ])
  t.is((await api('/rollouts/stabel/retry', { method: 'POST' })).status, 404)
  const unknown = await api('/rollouts/stabel/pause', { method: 'POST' })
  t.is(unknown.status, 404)
  t.is(
    errorOf(unknown).message,
    'Cannot find a rollout of channel stabel: it points at no image (did you mean stable?)',
  )
  t.is((await api('/rollouts/stable', { method: 'POST' })).status, 404)
})

test('a quarantine is lifted by version, and a lock is given back by a person', async (t) => {
  const { api, releases } = await startHttpWithReleases(t)
  const mac = parseMac('02:00:00:00:00:01')
  releases.quarantineViews = [{ version: '1+b', mac, reason: 'panic', sinceMs: 5, channels: [] }]
  releases.updateLocks = [{ channel: 'stable', holder: 'fleetlock:a/b', sinceMs: 5 }]
  t.deepEqual((await api('/quarantines')).body, { quarantines: releases.quarantineViews })
  t.deepEqual((await api('/locks')).body, { locks: releases.updateLocks })
  t.deepEqual((await api('/quarantines/1%2Bb', remove)).body, { version: '1+b' })
  t.deepEqual((await api('/locks/stable/fleetlock%3Aa%2Fb', remove)).body, {
    ...{ channel: 'stable', holder: 'fleetlock:a/b' },
  })
  t.deepEqual(releases.calls, [
    ['lift', '1+b'],
    ['releaseLock', 'stable', 'fleetlock:a/b'],
  ])
  t.is((await api('/quarantines/2', remove)).status, 404)
  t.is((await api('/locks/stable/b', remove)).status, 404)
  t.is(codeOf(await api('/locks/No/b', remove)), 'invalid-input')
})

test('FleetLock gives the lock to one at a time, in the form that its clients know', async (t) => {
  const { url, releases } = await startHttpWithReleases(t)
  const ask = (path: string, body: string, ...args: string[]) =>
    curl('-w', '%{http_code}', ...args, '-d', body, `${url}/fleetlock/v1/${path}`)
  const client = (id: string) => JSON.stringify({ client_params: { group: 'workers', id } })
  const asked = ['-H', 'fleet-lock-protocol: true']
  t.is(await ask('pre-reboot', client('one'), ...asked), '200')
  t.is(await ask('pre-reboot', client('one'), ...asked), '200')
  const refused = await ask('pre-reboot', client('two'), ...asked)
  t.deepEqual(JSON.parse(refused.slice(0, -3)), {
    kind: 'failed_lock_semaphore_full',
    value: 'Cannot let two restart: fleetlock:one has the lock',
  })
  t.true(refused.endsWith('409'))
  t.is(await ask('steady-state', client('two'), ...asked), '200')
  t.is(await ask('steady-state', client('one'), ...asked), '200')
  t.is(await ask('pre-reboot', client('two'), ...asked), '200')
  t.deepEqual(releases.calls[0], ['lock', 'workers', 'one'])
  releases.lock = async () => ({ isHeld: false, holder: 'fleetlock:two' })
  t.regex(await ask('pre-reboot', client('two'), ...asked), /it has the lock of another group/)
  releases.lock = async () => ({ isHeld: false })
  t.regex(await ask('pre-reboot', client('two'), ...asked), /nobody may now/)
})

test('FleetLock is answered over HTTPS too, and by nobody unless it is switched on', async (t) => {
  const body = JSON.stringify({ client_params: { group: 'workers', id: 'one' } })
  const args = (caFile: string) => ['--cacert', caFile, '-H', 'fleet-lock-protocol: true', '-d', body]
  const on = await startHttpWithReleases(t)
  const secure = ['-w', '%{http_code}', ...args(on.caFile)]
  t.is(await curl(...secure, `${on.tlsUrl}/fleetlock/v1/pre-reboot`), '200')
  const off = await startHttp(t, { isFleetLockOn: false, releases: on.releases })
  for (const url of [off.url, off.tlsUrl]) {
    for (const path of ['pre-reboot', 'steady-state', 'nothing']) {
      const answer = await curl(...args(off.caFile), '-w', '%{http_code}', `${url}/fleetlock/v1/${path}`)
      t.regex(answer, /"not_found".*set fleetlock\/enabled to true.*404$/)
    }
  }
  t.deepEqual(on.releases.calls, [['lock', 'workers', 'one']])
})

test('FleetLock refuses what is not of its protocol', async (t) => {
  const { url, releases } = await startHttpWithReleases(t)
  const asked = { 'fleet-lock-protocol': 'true' }
  const good = JSON.stringify({ client_params: { group: 'workers', id: 'one' } })
  const of = (group: unknown, id: unknown) => JSON.stringify({ client_params: { group, id } })
  const cases: [path: string, init: RequestInit, status: number, kind: string][] = [
    ['pre-reboot', { method: 'POST', body: good }, 400, 'missing_fleetlock_header'],
    ['pre-reboot', { method: 'GET', headers: asked }, 405, 'method_not_allowed'],
    ['nothing', { method: 'POST', headers: asked, body: good }, 404, 'not_found'],
    ...[
      of('', 'x'),
      of('a b', 'x'),
      of('x'.repeat(64), 'x'),
      of('g', ''),
      of('g', 'x\ny'),
      of('g', 7),
      '{}',
      '',
      '[',
    ]
      .map((body) => ({ method: 'POST', headers: asked, body }))
      .map(
        (init) =>
          ['steady-state', init, 400, 'invalid_client_params'] as [string, RequestInit, number, string],
      ),
    ['pre-reboot', { method: 'POST', headers: asked, body: of('g', 'x'.repeat(5000)) }, 413, 'too_large'],
  ]
  for (const [path, init, status, kind] of cases) {
    const answer = await call(`${url}/fleetlock/v1/${path}`, init)
    t.is(answer.status, status, `${path} ${init.body}`)
    t.is((answer.body as { kind: string }).kind, kind)
    t.is(typeof (answer.body as { value: string }).value, 'string')
  }
  t.deepEqual(releases.calls, [])
  releases.failure = new Error('secret')
  const broken = await call(`${url}/fleetlock/v1/pre-reboot`, { method: 'POST', headers: asked, body: good })
  t.is(broken.status, 500)
  t.deepEqual(broken.body, { kind: 'internal', value: 'Cannot do this: an internal error' })
})
