// How machines prove who they are over HTTPS, and who is heard at all.

import test from 'ava'

import { parseMac } from '#lib/mac.ts'
import { call, codeOf, post, startHttp } from '#testing/http-fixture.ts'
import { machineKeys, readStep } from '#testing/test-machine.ts'

import { formatStep } from './identity-door.ts'

const MAC = parseMac('52:54:00:12:34:56')
const OTHER = parseMac('52:54:00:00:00:01')
const PATH = '/v1/machines/52-54-00-12-34-56'

test('formatStep() says each step as docs/ports-and-endpoints.md does', (t) => {
  const attempt = 'a1'
  const credential = new Uint8Array([1, 2, 3])
  t.is(
    formatStep({ kind: 'challenge', attempt, credential }),
    'state challenge\nattempt a1\ncredential AQID\n',
  )
  t.is(formatStep({ kind: 'pairing', attempt, nonce: 'ff' }), 'state pairing\nattempt a1\nnonce ff\n')
  t.is(formatStep({ kind: 'waiting', attempt, isConflict: true }), 'state waiting\nattempt a1\nknown yes\n')
  t.is(formatStep({ kind: 'waiting', attempt, isConflict: false }), 'state waiting\nattempt a1\nknown no\n')
  t.is(formatStep({ kind: 'closed', reason: 'a\nb' }), 'state closed\nreason a b\n')
  const certificate = '-----BEGIN CERTIFICATE-----\n'
  t.is(
    formatStep({ kind: 'issued', mac: MAC, tier: 'paired', certificate }),
    `state issued\nmachine 52-54-00-12-34-56\ntier paired\n\n${certificate}`,
  )
})

test('a machine waits for a person at the door, and is told as soon as one has typed its code', async (t) => {
  const { newMachine, profiles, identities, desk } = await startHttp(t)
  profiles.identity = 'paired'
  const machine = await newMachine(MAC)
  let paired: unknown
  const step = await machine.prove(async (code) => {
    t.is(readStep(await machine.call(`identity/${identities.attempts()[0]?.id}`))['state'], 'waiting')
    paired = identities.pair(MAC, code, { replace: false, by: 'a person' })
  })
  await paired
  t.like(step, { state: 'issued', machine: '52-54-00-12-34-56', tier: 'paired' })
  t.is((await machine.say('check-in', { boot: 'b', phase: 'running' })).status, 204)
  t.deepEqual(desk.speakers, [machine.options.keys.keySha256])
})

test('a machine that waits is told when its attempt is closed, and 404 when it is forgotten', async (t) => {
  const { newMachine, profiles, identities } = await startHttp(t)
  profiles.identity = 'paired'
  const machine = await newMachine(MAC)
  const step = await machine.prove()
  const waiting = machine.call(`identity/${step['attempt']}?wait=60`)
  for (let wrong = 0; wrong < 3; wrong += 1) {
    await t.throwsAsync(identities.pair(MAC, 'wrong', { replace: false, by: 'x' }), { code: 'wrong-code' })
  }
  t.like(readStep(await waiting), { state: 'closed' })
  t.like(readStep(await machine.call('identity/made-up?wait=60')), { code: 'not-found' })
  t.like(readStep(await machine.call(`identity/${step['attempt']}?wait=61`)), { code: 'invalid-input' })
})

test('what is no request is refused with the field at fault, and over plain HTTP everything is', async (t) => {
  const { url, newMachine } = await startHttp(t)
  const machine = await newMachine(MAC)
  const { csr } = await machineKeys()
  const good = { csr, macs: [MAC], commitment: 'ab'.repeat(32) }
  const bad: [body: object, said: RegExp][] = [
    [{ ...good, csr: 'no request' }, /./],
    [{ ...good, commitment: 'AB'.repeat(32) }, /commitment/],
    [{ ...good, macs: ['ff:ff:ff:ff:ff:ff'] }, /macs\.0/],
    [{ ...good, macs: Array.from({ length: 33 }, () => MAC) }, /macs/],
    [{ ...good, uuid: 'x'.repeat(257) }, /uuid/],
    [{ ...good, tpm: { ek: 'AQID' } }, /tpm\.key/],
    [{ ...good, tpm: { ek: '!', key: 'AQID' } }, /tpm\.ek/],
    [{ ...good, tpm: { ek: 'AQID', key: 'AQID' } }, /./],
  ]
  for (const [body, said] of bad) {
    const step = readStep(await machine.say('identity', body))
    t.like(step, { status: '400', code: 'invalid-input' })
    t.regex(step['message'] ?? '', said)
  }
  t.is(readStep(await machine.say('identity', { ...good, csr: 'x'.repeat(17_000) }))['status'], '413')
  t.is((await machine.call('identity')).status, 405)
  t.is((await machine.call('identity/a/b')).status, 404)
  t.is(codeOf(await call(`${url}${PATH}/identity`, post(good))), 'identity-needed')
})

test('nobody is heard without a certificate but by events, which say so', async (t) => {
  const { url, newMachine, machine, desk } = await startHttp(t)
  const stranger = await newMachine(MAC, { keys: 1 })
  const asks: [what: string, body?: object][] = [
    ['boots', { slot: 'a' }],
    ['disks', { boot: 'b', firmware: 'bios', disks: [] }],
    ['check-in', { boot: 'b', phase: 'running' }],
    ['target?boot=b'],
    ['secrets?boot=b'],
  ]
  for (const [what, body] of asks) {
    const init = body === undefined ? {} : post(body)
    t.is(codeOf(await call(`${url}${PATH}/${what}`, init)), 'identity-needed', what)
    t.is(codeOf(await stranger.call(what, init)), 'identity-needed', what)
  }
  t.deepEqual(desk.calls, [])
  const report = { boot: 'b', step: '40-image', status: 'done' }
  t.is((await call(`${url}${PATH}/events`, post(report))).status, 204)
  t.is((await (await machine(MAC)).say('events', report)).status, 204)
  t.deepEqual(desk.speakers, [undefined, (await machineKeys()).keySha256])
})

test('a certificate is good for its own machine, until that is forgotten', async (t) => {
  const { machine, identities, store, desk } = await startHttp(t)
  const own = await machine(MAC)
  const other = await machine(OTHER, { keys: 1 })
  other.certificate = own.certificate
  const { key } = own.options.keys
  for (let asked = 0; asked < 2; asked += 1) {
    const refused = await other.call('target', { key })
    t.is(codeOf(refused), 'wrong-machine')
  }
  t.is(
    codeOf(await other.call('events', { key, ...post({ boot: 'b', step: 'x', status: 'done' }) })),
    'wrong-machine',
  )
  t.deepEqual(desk.calls, [])
  const told = (await store.events.list({ limit: 99 })).filter(({ kind }) => kind === 'wrong-machine')
  t.like(told, [{ mac: MAC, data: { asked: OTHER, by: MAC } }])
  t.is(told.length, 1)

  t.is((await own.call('target')).status, 204)
  await identities.forget(MAC, 'a person')
  t.is(codeOf(await own.call('target')), 'identity-needed')
})

test('who says too much without a certificate is asked to wait', async (t) => {
  const { url } = await startHttp(t)
  const statuses = new Set<number>()
  for (let n = 0; n < 450; n += 1) {
    statuses.add((await call(`${url}${PATH}/events`, post({ boot: 'b', step: 'x', status: 'done' }))).status)
  }
  t.deepEqual([...statuses], [204, 429])
})
