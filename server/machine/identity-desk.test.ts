// Machines that prove who they are, over a real store and a real CA.

import { X509Certificate } from 'node:crypto'
import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'

import type { ErrorCode } from '#lib/errors.ts'
import { type Mac, macToPath } from '#lib/mac.ts'
import { type Desk, ekOf, macOf, startIdentityDesk, VOUCHED } from '#testing/claimants.ts'
import type { Tree } from '#testing/registry-fixture.ts'

import type { IdentityRule } from './identity.ts'

const [A, B, C] = [macOf(1), macOf(2), macOf(3)]

const rule = (identity: IdentityRule, more: Tree = {}): { readonly tree: Tree } => ({
  tree: { defaults: { identity }, ...more },
})

const folder = (number: number) => `machines/${macToPath(macOf(number))}`

const isRefused = (t: ExecutionContext, work: Promise<unknown>, code: ErrorCode = 'identity-refused') =>
  t.throwsAsync(work, { code })

test('a machine without a TPM shows a code, and a person who types it gets it a certificate', async (t) => {
  const desk = await startIdentityDesk(t)
  const machine = await desk.claimant(A, { from: '10.0.0.9' })
  const step = await machine.prove()
  if (step.kind !== 'waiting') return t.fail(step.kind)
  t.false(step.isConflict)
  t.like(desk.identities.attempts()[0], { mac: A, state: 'waiting', isConflict: false, address: '10.0.0.9' })
  t.notRegex(
    JSON.stringify([desk.identities.attempts(), await desk.store.events.list({ limit: 99 })]),
    /code":|-[A-Z0-9]{3}"/,
  )
  let changes = 0
  desk.identityDesk.onAttemptChange(() => {
    changes += 1
  })
  const identity = await machine.pair()
  t.is(changes, 1)
  const { keySha256 } = machine.claim.keys
  t.like(identity, { mac: A, macs: [A], tier: 'paired', keySha256, by: 'a person' })
  const issued = await machine.look(step.attempt)
  if (issued.kind !== 'issued') return t.fail(issued.kind)
  const certificate = new X509Certificate(issued.certificate)
  t.is(certificate.publicKey.export({ type: 'spki', format: 'der' }).length > 0, true)
  t.is(Date.parse(certificate.validTo), identity.certificateUntilMs)
  t.deepEqual(desk.identityDesk.identityOfKey(keySha256), identity)
  t.deepEqual(desk.identities.attempts(), [])
  t.like((await desk.roster.find(A))?.identity, { tier: 'paired', by: 'a person', keySha256 })
  t.deepEqual(await desk.kinds(A), ['pairing-waiting', 'machine-discovered', 'identity-issued'])
})

test('a known key gets its certificate at once, also after a restart', async (t) => {
  const desk = await startIdentityDesk(t)
  const machine = await desk.claimant(A)
  await machine.prove()
  const { sinceMs } = await machine.pair()
  await desk.stop()
  const again = await startIdentityDesk(t, { directory: desk.directory })
  again.clock.ms += 1_000
  t.like(await (await again.claimant(A)).begin(), { kind: 'issued', mac: A, tier: 'paired' })
  t.is(again.identities.find(A)?.sinceMs, sinceMs)
})

test('pair() takes three tries, then every attempt of the machine is closed', async (t) => {
  const desk = await startIdentityDesk(t)
  const [machine, pretender] = [await desk.claimant(A), await desk.claimant(A, { key: 1 })]
  const [step, other] = [await machine.prove(), await pretender.prove()]
  if (step.kind !== 'waiting' || other.kind !== 'waiting') return t.fail()
  await isRefused(t, desk.identities.pair(B, machine.code, { replace: false, by: 'x' }), 'not-found')
  for (const left of [/2 more tries/, /1 more tries/]) {
    t.regex((await isRefused(t, machine.pair({ code: '000-00U' }), 'wrong-code'))?.message ?? '', left)
  }
  t.is((await machine.look(step.attempt)).kind, 'waiting')
  await isRefused(t, machine.pair({ code: '000-00U' }), 'wrong-code')
  for (const [each, { attempt }] of [
    [machine, step],
    [pretender, other],
  ] as const) {
    t.is((await each.look(attempt)).kind, 'closed')
  }
  await isRefused(t, machine.pair(), 'not-found')
  t.is((await desk.kinds(A)).filter((kind) => kind === 'pairing-failed').length, 3)

  await machine.prove()
  t.is((await machine.pair()).tier, 'paired', 'with another code')
})

test('pair() takes the machine whose console shows the code, of several in its name', async (t) => {
  const desk = await startIdentityDesk(t)
  const [pretender, machine] = [await desk.claimant(A, { key: 1 }), await desk.claimant(A)]
  await pretender.prove()
  await machine.prove()
  t.is((await machine.pair()).keySha256, machine.claim.keys.keySha256)
  await desk.identityDesk.noteKept(machine.claim.keys.keySha256)
  await isRefused(t, pretender.pair(), 'conflict')
  t.is(desk.identities.find(A)?.keySha256, machine.claim.keys.keySha256)
})

test('a known machine with another key is set aside until a person says that it is replaced', async (t) => {
  const desk = await startIdentityDesk(t, rule('mac-only'))
  const known = await desk.claimant(A)
  t.is((await known.begin()).kind, 'issued')
  await desk.identityDesk.noteKept(known.claim.keys.keySha256)
  const other = await desk.claimant(A, { key: 1 })
  const step = await other.prove()
  t.like(step, { kind: 'waiting', isConflict: true })
  const refusal = await isRefused(t, other.pair(), 'conflict')
  t.regex(`${(refusal as { fix?: string })?.fix}`, /--replace/)
  t.is((await (await desk.claimant(A)).begin()).kind, 'issued', 'the known one goes on meanwhile')
  t.like(await other.pair({ replace: true }), { mac: A, tier: 'paired' })
  t.is(desk.identityDesk.identityOfKey(known.claim.keys.keySha256), undefined)
  await desk.identityDesk.noteKept(other.claim.keys.keySha256)
  t.like(await (await desk.claimant(A)).prove(), { kind: 'waiting', isConflict: true })
  t.true((await desk.kinds(A)).includes('identity-conflict'))
})

test('another key is no conflict while the known one was never used from a disk: it is gone with a restart', async (t) => {
  const desk = await startIdentityDesk(t)
  const live = await desk.claimant(A)
  await live.prove()
  await live.pair()
  const restarted = await desk.claimant(A, { key: 1 })
  t.like(await restarted.prove(), { kind: 'waiting', isConflict: false }, 'a code all the same')
  t.is((await live.begin()).kind, 'issued', 'nobody but a person ends what runs')
  t.like(await restarted.pair(), { mac: A, tier: 'paired' })
  t.is(desk.identityDesk.identityOfKey(live.claim.keys.keySha256), undefined)
  // Once it is kept it stays so, with every renewal and over restarts of the server.
  await desk.identityDesk.noteKept(restarted.claim.keys.keySha256)
  t.is((await restarted.begin()).kind, 'issued')
  t.true(desk.identities.find(A)?.isKept)
  await desk.stop()
  const again = await startIdentityDesk(t, { directory: desk.directory })
  t.like(await (await again.claimant(A, { key: 2 })).prove(), { kind: 'waiting', isConflict: true })
})

test('a machine whose files ask for more than it has shown must show it, and is heard as nobody until then', async (t) => {
  const desk = await startIdentityDesk(t, rule('mac-only'))
  const machine = await desk.claimant(A)
  await machine.begin()
  const { keySha256 } = machine.claim.keys
  await desk.identityDesk.noteKept(keySha256)
  t.like(desk.identityDesk.identityOfKey(keySha256), { tier: 'mac-only' })
  desk.tree['defaults'] = { identity: 'paired' }
  t.is(desk.identityDesk.identityOfKey(keySha256), undefined)
  t.like(await machine.prove(), { kind: 'waiting', isConflict: false })
  t.like(await machine.pair(), { tier: 'paired', keySha256, isKept: true })
  t.like(desk.identityDesk.identityOfKey(keySha256), { tier: 'paired' })
  desk.tree['defaults'] = { identity: 'tpm-approved' }
  await isRefused(t, machine.begin())
  desk.tree['defaults'] = { identity: 'mac-only' }
  t.like(desk.identityDesk.identityOfKey(keySha256), { tier: 'paired' }, 'less is asked: it has shown enough')
})

test('a disk in another machine is known by the cards of that machine, whatever it calls itself', async (t) => {
  const desk = await startIdentityDesk(t)
  const machine = await desk.claimant(A)
  await machine.prove()
  await machine.pair()
  await isRefused(t, (await desk.claimant(A, { macs: [B] })).begin())
  t.true((await desk.kinds(B)).includes('identity-conflict'))
  t.is((await machine.begin()).kind, 'issued', 'the machine itself goes on')
})

test('a known key on another machine is refused, and told', async (t) => {
  const desk = await startIdentityDesk(t, rule('mac-only'))
  await (await desk.claimant(A)).begin()
  await isRefused(t, (await desk.claimant(B)).begin())
  t.deepEqual(await desk.kinds(B), ['identity-conflict'])
  t.is(desk.identities.find(B), undefined)
})

test('a TPM proves itself with each new key; what does not is refused', async (t) => {
  const desk = await startIdentityDesk(t, rule('tpm-first-use'))
  const machine = await desk.claimant(A, { ek: 'tpm' })
  t.like(await machine.prove(), { kind: 'issued', tier: 'tpm-first-use' })
  t.is(desk.identities.find(A)?.ekSha256, ekOf('tpm'))
  t.like(await (await desk.claimant(A, { ek: 'tpm', key: 1 })).prove(), { kind: 'issued' }, 'powerwashed')
  await isRefused(t, (await desk.claimant(B, { ek: 'tpm', key: 2 })).prove())
  t.like(await (await desk.claimant(A, { ek: 'another', key: 2 })).prove(), { isConflict: true })
  await isRefused(t, (await desk.claimant(B, { key: 2 })).prove())

  const liar = await desk.claimant(C, { ek: 'tpm of somebody else', key: 2 })
  const step = await liar.begin()
  if (step.kind !== 'challenge') return t.fail(step.kind)
  await isRefused(t, liar.answer(step.attempt, liar.proofOf(Buffer.alloc(32))))
  await isRefused(t, liar.answer(step.attempt, liar.proofOf(step.credential)), 'not-found')
  t.is(desk.identities.find(C), undefined)
})

test('approve() lets a TPM in that waits for it, and withdraw() lets it out again where that is asked for', async (t) => {
  const desk = await startIdentityDesk(t, rule('tpm-approved'))
  t.like(await (await desk.claimant(B, { ek: VOUCHED })).prove(), { tier: 'tpm-approved' })
  t.is(desk.identities.find(B)?.by, 'ek-list')
  const machine = await desk.claimant(A, { ek: 'tpm', key: 1 })
  const step = await machine.prove()
  t.like(step, { kind: 'closed' })
  t.regex(step.kind === 'closed' ? step.reason : '', /nobody has approved its TPM: kateskit approve 02:00/)
  t.like(desk.identities.attempts()[0], { state: 'refused', ekSha256: ekOf('tpm') })
  await isRefused(t, desk.identities.approve({ mac: C }, 'x'), 'not-found')
  t.like(await desk.identities.approve({ mac: A }, 'a person'), { ekSha256: ekOf('tpm'), by: 'a person' })
  t.like(await machine.begin(), { kind: 'issued', tier: 'tpm-approved' })
  await desk.identities.withdraw(ekOf('tpm'))
  t.is(desk.identities.find(A)?.tier, 'tpm-first-use')
  t.is(desk.identityDesk.identityOfKey(machine.claim.keys.keySha256), undefined, 'heard as nobody at once')
  t.is((await machine.begin()).kind, 'challenge', 'and has to be approved anew')
  await isRefused(t, desk.identities.withdraw(ekOf('tpm')), 'not-found')
})

test('approve() takes in at once a machine that shows a code, and asks which TPM when there are two', async (t) => {
  const desk = await startIdentityDesk(t)
  const machine = await desk.claimant(A, { ek: 'one' })
  const step = await machine.prove()
  if (step.kind !== 'waiting') return t.fail(step.kind)
  await (await desk.claimant(A, { ek: 'two', key: 1 })).prove()
  await isRefused(t, desk.identities.approve({ mac: A }, 'a person'), 'conflict')
  await desk.identities.approve({ ekSha256: ekOf('one') }, 'a person')
  t.like(await machine.look(step.attempt), { kind: 'issued', tier: 'tpm-approved' })
})

test('forget() makes a machine prove itself anew', async (t) => {
  const desk = await startIdentityDesk(t, rule('mac-only'))
  const machine = await desk.claimant(A)
  await machine.begin()
  await desk.identities.forget(A, 'a person')
  t.is(desk.identityDesk.identityOfKey(machine.claim.keys.keySha256), undefined)
  await isRefused(t, desk.identities.forget(A, 'a person'), 'not-found')
  desk.tree['defaults'] = { identity: 'paired' }
  t.is((await machine.prove()).kind, 'waiting')
})

test('a nonce that is not the one it was bound to ends the attempt', async (t) => {
  const desk = await startIdentityDesk(t)
  const machine = await desk.claimant(A)
  const step = await machine.begin()
  if (step.kind !== 'pairing') return t.fail(step.kind)
  t.deepEqual(await machine.look(step.attempt), step)
  await isRefused(t, desk.identityDesk.look(B, step.attempt), 'not-found')
  await isRefused(t, machine.answer(step.attempt, { kind: 'nonce', nonce: 'ab'.repeat(16) }))
  await isRefused(t, machine.answer(step.attempt, { kind: 'nonce', nonce: machine.nonce }), 'not-found')
})

test('several network cards are one machine: the MAC with a folder, else the one that is known', async (t) => {
  const desk = await startIdentityDesk(t, rule('mac-only', { [folder(2)]: {} }))
  t.like(await (await desk.claimant(A, { macs: [A, B] })).begin(), { kind: 'issued', mac: B })
  t.deepEqual(desk.identities.find(A)?.macs, [B, A])
  t.is(desk.identityDesk.primaryOf(A), B)
  t.like(await (await desk.claimant(A, { macs: [A, B, C] })).begin(), { kind: 'issued', mac: B })
  t.is(desk.identityDesk.primaryOf(C), B)
  // By any of its cards it is offered the boots of the machine that it is, and is no machine of its own.
  await desk.roster.seen(A, { uuid: 'of the alias' })
  const { boot } = await desk.desk.offerBoot(A, {})
  t.is(boot.mac, B)
  t.deepEqual(desk.roster.macs(), [B])
  await desk.desk.report(A, { boot: boot.id, step: '40-image', status: 'done' })
  await isRefused(t, (await desk.claimant(macOf(9))).begin())
})

test('a MAC that has a folder or an identity is nobody’s alias, nor one of which more is asked', async (t) => {
  const desk = await startIdentityDesk(t, {
    tree: { defaults: { identity: 'mac-only' }, [folder(1)]: {}, [folder(2)]: { identity: 'paired' } },
  })
  await (await desk.claimant(C, { key: 1 })).begin()
  await (await desk.claimant(A, { macs: [A, B, C, macOf(4)] })).begin()
  t.deepEqual(desk.identities.find(A)?.macs, [A, macOf(4)])
  await desk.identityDesk.noteKept((await desk.claimant(A)).claim.keys.keySha256)
  // Who takes a known alias away must be let by a person, and takes that one only.
  const split = await desk.claimant(macOf(4), { key: 2 })
  t.like(await split.prove(), { isConflict: true })
  t.like(await split.pair({ replace: true }), { mac: macOf(4), macs: [macOf(4)] })
  t.deepEqual(desk.identities.find(A)?.macs, [A])
  t.is(desk.identities.find(A)?.keySha256, (await desk.claimant(A)).claim.keys.keySha256)
})

test('pair() asks for the machine that it would be, when that is another than the one that was meant', async (t) => {
  const desk = await startIdentityDesk(t, { tree: { [folder(2)]: {} } })
  const machine = await desk.claimant(A, { macs: [A, B] })
  await machine.prove()
  const refusal = await isRefused(t, machine.pair(), 'conflict')
  t.regex(refusal?.message ?? '', /says that it is 02:00:00:00:00:02/)
  t.like(await desk.identities.pair(B, machine.code, { replace: false, by: 'x' }), { mac: B, macs: [B, A] })
})

test('attempts are bounded: 8 of a MAC, and one address keeps no other out', async (t) => {
  const desk = await startIdentityDesk(t)
  const from = (key: number, address: string) => desk.claimant(A, { key, from: address })
  for (let key = 1; key <= 8; key += 1) await (await from(key, '10.0.0.66')).prove()
  await isRefused(t, (await from(9, '10.0.0.66')).prove(), 'too-many-requests')
  const machine = await from(0, '10.0.0.9')
  t.is((await machine.prove()).kind, 'waiting')
  t.is(desk.identities.attempts().length, 8)
  await isRefused(t, (await from(9, '10.0.0.66')).prove(), 'too-many-requests')
  await machine.prove()
  t.is(desk.identities.attempts().length, 8, 'the same key begins anew in its own place')
  t.like(await machine.pair(), { tier: 'paired' })
  desk.clock.turn(15 * 60_000)
  t.deepEqual(desk.identities.attempts(), [])
})

test('a flood of attempts is told only so often', async (t) => {
  const desk = await startIdentityDesk(t)
  for (let round = 0; round < 10; round += 1) {
    for (let key = 1; key <= 4; key += 1) await (await desk.claimant(A, { key })).prove()
  }
  t.true((await desk.kinds(A)).length <= 10)
})

test('a boot belongs to the key that used it first', async (t) => {
  const desk = await startIdentityDesk(
    t,
    rule('mac-only', { [folder(1)]: { role: 'worker' }, 'roles/worker': {} }),
  )
  const { boot } = await desk.desk.offerBoot(A, {})
  const by = { keySha256: 'aa' }
  await desk.desk.checkIn(A, { boot: boot.id, phase: 'starting' }, by)
  await desk.desk.target(A, boot.id, by)
  const other = { keySha256: 'bb' }
  await isRefused(t, desk.desk.checkIn(A, { boot: boot.id, phase: 'running' }, other), 'wrong-machine')
  await isRefused(t, desk.desk.target(A, boot.id, other), 'wrong-machine')
  await isRefused(
    t,
    desk.desk.takeDisks(A, { boot: boot.id, firmware: 'bios', disks: [] }, other),
    'wrong-machine',
  )
  await isRefused(
    t,
    desk.desk.report(A, { boot: boot.id, step: 'x', status: 'done' }, other),
    'wrong-machine',
  )
  t.is((await desk.roster.find(A))?.state, 'starting')
  t.is((await desk.kinds(A)).filter((kind) => kind === 'check-in-refused').length, 1)
  const named = await desk.desk.nameBoot(A, 'a', other)
  await isRefused(t, desk.desk.checkIn(A, { boot: named.id, phase: 'running' }, by), 'wrong-machine')
})

test('what anybody says in the name of a proved machine fills in what is missing, and changes nothing', async (t) => {
  const desk = await startIdentityDesk(t, rule('mac-only'))
  const from = { address: '10.0.0.9', uuid: 'own', firmware: 'bios' } as const
  await desk.roster.seen(A, { firmware: 'bios' })
  await (await desk.claimant(A, { from: '10.0.0.9' })).begin()
  await desk.roster.seen(A, { uuid: 'own' })
  for (let n = 0; n < 3; n += 1) {
    desk.clock.turn(60_000)
    await desk.desk.offerBoot(A, { uuid: 'other', firmware: 'uefi-x64' }, 'powerwash')
  }
  t.like(await desk.roster.find(A), from)
})

test('what machines are given and refused is in the audit log, and a flood of refusals fills it not', async (t) => {
  const desk = await startIdentityDesk(t, rule('mac-only'))
  const machine = await desk.claimant(A, { from: '10.0.0.9' })
  await machine.begin()
  await machine.begin()
  await isRefused(t, (await desk.claimant(B, { from: '10.0.0.9' })).begin())
  const identity = desk.identities.find(A)
  if (identity === undefined) return t.fail()
  await desk.identityDesk.noteRefusal(B, identity)
  const entries = async () =>
    (await desk.store.audit.list({ limit: 999 })).map(({ actor, action, target, outcome }) => [
      ...[actor, action, target, outcome],
    ])
  t.deepEqual(await entries(), [
    [`machine ${A}`, 'identity-issued', A, 'done'],
    ['anonymous 10.0.0.9', 'identity-conflict', B, 'identity-refused'],
    [`machine ${A}`, 'wrong-machine', B, 'wrong-machine'],
  ])
  for (let n = 0; n < 300; n += 1) await desk.identityDesk.noteRefusal(macOf(n % 200), identity)
  t.is((await entries()).length, 201)
  t.is((await desk.store.audit.verify()).problem, undefined)
})

/** Everything that anybody can do without proving anything, in any order. */
const anonymous = fc.constantFrom('begin', 'prove', 'answer wrong', 'script', 'report', 'seen', 'later')

async function doAnonymous(
  desk: Desk,
  what: string,
  { mac, key, claims }: { mac: number; key: number; claims: readonly number[] },
): Promise<void> {
  const own = macOf(mac)
  const machine = await desk.claimant(own, { key, macs: [own, ...claims.map(macOf)] })
  switch (what) {
    case 'begin':
      await machine.begin()
      return
    case 'prove':
      await machine.prove()
      return
    case 'answer wrong': {
      const step = await machine.begin()
      if ('attempt' in step) await machine.answer(step.attempt, { kind: 'proof', proof: 'ab'.repeat(32) })
      return
    }
    case 'script': {
      const { boot } = await desk.desk.offerBoot(own, { uuid: `${key}` }, 'recover')
      await desk.desk.report(own, { boot: boot.id, step: '40-image', status: 'failed', message: 'anything' })
      return
    }
    case 'seen':
      await desk.roster.seen(own, { firmware: 'bios' })
      return
    default:
      desk.clock.turn(10 * 60_000)
  }
}

test('nothing that anybody says makes a certificate for a machine under `paired` without pair()', async (t) => {
  const steps = fc.array(
    fc.record({
      what: anonymous,
      mac: fc.integer({ min: 1, max: 4 }),
      key: fc.integer({ min: 0, max: 2 }),
      claims: fc.array(fc.integer({ min: 1, max: 5 }), { maxLength: 3 }),
    }),
    { maxLength: 25 },
  )
  // Machine 3 is known already. Which of the others are under `paired`: 1 and 2, or 2 alone.
  const trees: readonly { readonly tree: Tree; readonly paired: readonly Mac[] }[] = [
    { tree: { [folder(3)]: {}, [folder(4)]: { identity: 'mac-only' } }, paired: [A, B, macOf(5)] },
    { tree: { defaults: { identity: 'mac-only' }, [folder(2)]: { identity: 'paired' } }, paired: [B] },
  ]
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...trees), steps, async ({ tree, paired }, all) => {
      const desk = await startIdentityDesk(t, { tree: { ...tree } })
      const known = await desk.claimant(C, { key: 3 })
      await known.prove()
      if (desk.identities.find(C) === undefined) await known.pair()
      await desk.identityDesk.noteKept(known.claim.keys.keySha256)
      for (const { what, ...step } of all) {
        await doAnonymous(desk, what, step).catch((error: { code?: string }) => {
          if (error.code === undefined) throw error
        })
      }
      for (const mac of paired) t.is(desk.identities.find(mac), undefined, mac)
      t.is(desk.identities.find(C)?.keySha256, known.claim.keys.keySha256)
      await desk.stop()
    }),
    { numRuns: 40 },
  )
})
