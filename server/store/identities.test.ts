// Identities, approvals, and the boots that belong to keys.

import test from 'ava'

import { parseMac } from '#lib/mac.ts'
import type { Identity } from '#machine/identity.ts'
import type { Boot } from '#machine/machine.ts'
import { open, refusal, tempFile } from '#testing/store-fixture.ts'

const MAC = parseMac('52:54:00:12:34:56')
const OTHER = parseMac('52:54:00:00:00:01')
const KEY = 'ab'.repeat(32)
const BARE: Identity = {
  ...{ mac: MAC, macs: [MAC], tier: 'paired', keySha256: KEY, sinceMs: 5, by: 'control socket' },
  certificateUntilMs: 9,
}

test('saveIdentity() keeps every field over a restart, and replaces by MAC', async (t) => {
  const file = tempFile(t)
  const store = await open(t, file)
  const full: Identity = { ...BARE, macs: [MAC, OTHER], uuid: 'u-1', tier: 'tpm-approved', ekSha256: 'ee' }
  await store.identities.saveIdentity(BARE)
  await store.identities.saveIdentity(full)
  await store.close()
  const { identities } = await open(t, file)
  t.deepEqual(await identities.identities(), [full])
  await identities.saveIdentity({ ...BARE, mac: OTHER, keySha256: 'cd'.repeat(32) })
  t.deepEqual(
    (await identities.identities()).map(({ mac }) => mac),
    [OTHER, MAC],
  )
  await identities.removeIdentity(MAC)
  await identities.removeIdentity(MAC)
  t.deepEqual(
    (await identities.identities()).map(({ mac }) => mac),
    [OTHER],
  )
})

test('saveApproval() keeps who approved a TPM until removeApproval()', async (t) => {
  const { identities } = await open(t)
  const approval = { ekSha256: 'ee', by: 'token lab (1)', sinceMs: 3 }
  await identities.saveApproval(approval)
  t.deepEqual(await identities.approvals(), [approval])
  await identities.removeApproval('ee')
  t.deepEqual(await identities.approvals(), [])
})

const boot = (id: string, mintedMs: number, plan: Boot['plan'] = 'live', mac = MAC): Boot => ({
  ...{ id, mac, mintedMs, plan },
})

test('offerBoot() offers a boot of the same plan again until a key has used it', async (t) => {
  const { machines } = await open(t)
  t.deepEqual(await machines.offerBoot(boot('b1', 10), 0), boot('b1', 10))
  t.deepEqual(await machines.offerBoot(boot('b2', 20), 0), boot('b1', 20), 'again, as the latest')
  t.is((await machines.offerBoot(boot('b3', 21, 'install'), 0)).id, 'b3', 'another plan')
  t.is((await machines.offerBoot(boot('b4', 22, 'live', OTHER), 0)).id, 'b4', 'another machine')
  t.deepEqual(await machines.offerBoot(boot('b5', 1), 0), boot('b1', 22), 'the clock was set back')
  t.is((await machines.offerBoot(boot('b6', 30), 22)).id, 'b6', 'the other is from before')
  t.true(await machines.claimBoot('b6', KEY))
  t.is((await machines.offerBoot(boot('b7', 31), 22)).id, 'b7')
})

test('offerBoot() pushes out no boot however often somebody asks', async (t) => {
  const { machines } = await open(t)
  await machines.offerBoot(boot('b1', 10, 'install'), 0)
  for (let n = 0; n < 200; n++)
    await machines.offerBoot(boot(`n${n}`, 11 + n, n % 2 ? 'hold' : 'powerwash'), 0)
  t.is((await machines.findBoot('b1'))?.mintedMs, 10)
  t.is((await machines.offerBoot(boot('last', 900, 'install'), 0)).id, 'b1')
})

test('claimBoot() makes a boot that of the first key, and of no other', async (t) => {
  const { machines } = await open(t)
  await machines.offerBoot(boot('b1', 10), 0)
  t.true(await machines.claimBoot('b1', KEY))
  t.true(await machines.claimBoot('b1', KEY))
  t.false(await machines.claimBoot('b1', 'cd'.repeat(32)))
  t.is((await machines.findBoot('b1'))?.keySha256, KEY)
  t.false(await machines.claimBoot('never minted', KEY))
  await machines.saveBoot({ ...boot('b2', 11), keySha256: KEY })
  t.is((await machines.findBoot('b2'))?.keySha256, KEY)
})

test('saveIdentity() fails when the store is closed', async (t) => {
  const store = await open(t)
  await store.close()
  t.is((await refusal(t, () => store.identities.saveIdentity(BARE))).code, 'unavailable')
})
