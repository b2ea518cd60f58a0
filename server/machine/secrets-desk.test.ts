// Who is handed secret files, over a real store: every refusal, and that it is written down before anything leaves.

import test, { type ExecutionContext } from 'ava'

import { KitError } from '#lib/errors.ts'
import { parseMac } from '#lib/mac.ts'
import { FakeSecrets } from '#testing/fake-secrets.ts'
import { open } from '#testing/store-fixture.ts'

import type { Identity } from './identity.ts'
import type { Machine } from './machine.ts'
import type { Profile } from './profile.ts'
import { createSecretsDesk, type SecretsDeskOptions } from './secrets-desk.ts'

const mac = parseMac('02:4b:69:74:00:01')
const other = parseMac('02:4b:69:74:00:02')
const [KEY, OTHER_KEY, UNKNOWN_KEY] = ['aa', 'bb', 'cc'].map((pair) => pair.repeat(32)) as [
  string,
  string,
  string,
]

const MACHINE: Machine = {
  ...{ mac, state: 'running', stateSinceMs: 0, firstSeenMs: 0, lastSeenMs: 0, rebootReasons: [] },
  bootId: 'now',
}
const PROFILE: Profile = { mac, role: 'worker', channel: 'stable', layers: [], settings: new Map() }

const identityOf = (of: typeof mac, keySha256: string): Identity => ({
  ...{ mac: of, macs: [of], tier: 'paired', keySha256, sinceMs: 0, by: 'control socket' },
  certificateUntilMs: 0,
})

async function makeDesk(t: ExecutionContext, changes: Partial<SecretsDeskOptions> = {}) {
  const store = await open(t)
  const secrets = new FakeSecrets()
  secrets.set(mac, 'the archive')
  for (const [id, keySha256] of [
    ['old', KEY],
    ['now', KEY],
    ['unclaimed', undefined],
    ['stolen', OTHER_KEY],
  ] as const) {
    await store.machines.saveBoot({ id, mac, mintedMs: 1, plan: 'disk', ...(keySha256 && { keySha256 }) })
  }
  const desk = createSecretsDesk({
    ...{ machines: store.machines, events: store.events, audit: store.audit, secrets },
    roster: { known: () => MACHINE },
    profiles: { profileFor: () => PROFILE },
    identityOfKey: (key) =>
      key === KEY ? identityOf(mac, key) : key === OTHER_KEY ? identityOf(other, key) : undefined,
    ...changes,
  })
  const kinds = async () => (await store.events.list({ limit: 100 })).map(({ kind }) => kind)
  const outcomes = async () => (await store.audit.list({ limit: 100 })).map(({ outcome }) => outcome)
  const ask = (boot: string, keySha256 = KEY) => desk.hand(mac, boot, { keySha256 })
  const refused = async (boot: string, keySha256?: string) => {
    const error = await t.throwsAsync(ask(boot, keySha256), { instanceOf: KitError })
    return error?.code
  }
  return { store, secrets, kinds, outcomes, ask, refused }
}

test('hand() gives the boot that checked in last its secrets, and writes that down', async (t) => {
  const { store, ask } = await makeDesk(t)
  const { bytes, digest } = await ask('now')
  t.is(Buffer.from(bytes).toString(), 'the archive')
  const [event] = await store.events.list({ limit: 1 })
  const [entry] = await store.audit.list({ limit: 1 })
  t.like(event, { kind: 'secrets-sent', mac, data: { boot: 'now' } })
  t.like(entry, { actor: `machine ${mac}`, target: mac, outcome: 'done', detail: 'boot=now' })
  // By it a short secret could be tried out.
  t.false(JSON.stringify([event, entry]).includes(digest.slice(0, 8)))
})

for (const [title, boot, key, code, changes] of [
  ['an older boot', 'old', KEY, 'stale-boot', {}],
  ['a boot that was never offered', 'made-up', KEY, 'not-found', {}],
  ['a key that is not known', 'now', UNKNOWN_KEY, 'identity-needed', {}],
  ["another machine's key", 'now', OTHER_KEY, 'wrong-machine', {}],
  [
    'a boot of another key',
    'stolen',
    KEY,
    'wrong-machine',
    { roster: { known: () => ({ ...MACHINE, bootId: 'stolen' }) } },
  ],
  [
    'a boot of no key',
    'unclaimed',
    KEY,
    'wrong-machine',
    { roster: { known: () => ({ ...MACHINE, bootId: 'unclaimed' }) } },
  ],
  ['a machine that never checked in', 'now', KEY, 'stale-boot', { roster: { known: () => undefined } }],
  [
    'a machine without a role',
    'now',
    KEY,
    'conflict',
    { profiles: { profileFor: () => ({ mac, channel: 'stable', layers: [], settings: new Map() }) } },
  ],
  [
    'a profile in error',
    'now',
    KEY,
    'conflict',
    { profiles: { profileFor: () => ({ ...PROFILE, broken: 'x' }) } },
  ],
] as const) {
  test(`hand() refuses ${title}, and says so once`, async (t) => {
    const { kinds, outcomes, refused } = await makeDesk(t, changes)
    for (let time = 0; time < 3; time += 1) t.is(await refused(boot, key), code)
    t.deepEqual(await kinds(), ['secrets-refused'])
    t.deepEqual(await outcomes(), [code])
  })
}

test('hand() says not-found to a machine that has none, and hands out nothing that cannot be written down', async (t) => {
  const none = await makeDesk(t, { secrets: new FakeSecrets() })
  t.is(await none.refused('now'), 'not-found')
  t.deepEqual(await none.kinds(), [])
  const unwritten = await makeDesk(t, {
    audit: {
      append: async () => {
        throw new KitError('no-space', 'Cannot write the audit log')
      },
    },
  })
  t.is(await unwritten.refused('now'), 'no-space')
  t.deepEqual(await unwritten.kinds(), [])
})
