// Decisions about one machine: states, check-ins, boot plans.

import test from 'ava'

import type { ErrorCode } from '#lib/errors.ts'
import { parseMac } from '#lib/mac.ts'

import { hostnameOf } from './boot-plan.ts'
import { type CheckInFacts, decideCheckIn } from './check-in.ts'
import { CHECK_IN_PHASES, type MachineState, nextState } from './lifecycle.ts'
import { LOADERS, loaderFor } from './loaders.ts'
import type { Boot, Machine, Slot, Slots } from './machine.ts'
import type { CheckIn } from './ports.ts'
import type { UpdateLock } from './release-ports.ts'
import { checkSetting } from './settings.ts'

const mac = parseMac('02:4b:69:74:00:01')
const machine: Machine = {
  mac,
  state: 'discovered',
  stateSinceMs: 1,
  firstSeenMs: 1,
  lastSeenMs: 1,
  rebootReasons: [],
}
const older: Boot = { id: 'older', mac, mintedMs: 10, plan: 'live' }
const newer: Boot = { id: 'newer', mac, mintedMs: 20, plan: 'live' }
const ofAnother: Boot = { id: 'another', mac: parseMac('02:00:00:00:00:09'), mintedMs: 30, plan: 'live' }

const netboot = (plan: Boot['plan'], mintedMs = 30): Boot => ({ id: 'n', mac, mintedMs, plan })
const fromDisk: Boot = { id: 'd', mac, mintedMs: 40, plan: 'disk' }

/** The machine after a check-in that is believed, and what it says of it. */
function after(
  before: Partial<Machine>,
  checkIn: Omit<CheckIn, 'boot'>,
  boot: Boot,
  facts: Partial<CheckInFacts> = {},
) {
  const outcome = decideCheckIn(
    { ...checkIn, boot: boot.id },
    { machine: { ...machine, ...before }, named: boot, current: undefined, nowMs: 100, ...facts },
  )
  if (outcome.kind === 'refused') throw new Error(outcome.reason)
  return { ...outcome, kinds: outcome.events.map(({ kind }) => kind) }
}

for (const state of ['discovered', 'starting', 'installing', 'running', 'failed'] satisfies MachineState[]) {
  for (const phase of CHECK_IN_PHASES) {
    test(`nextState() of ${state} by a check-in ${phase} is ${phase}`, (t) =>
      t.is(nextState(state, phase), phase))
  }
}

const refusals: readonly [string, CheckIn, Partial<Machine>, { named?: Boot; current?: Boot }, ErrorCode][] =
  [
    ['of a boot nobody offered', { boot: 'x', phase: 'running' }, {}, {}, 'not-found'],
    [
      "of another machine's boot",
      { boot: 'another', phase: 'running' },
      {},
      { named: ofAnother },
      'not-found',
    ],
    [
      'of a boot older than the current one',
      { boot: 'older', phase: 'running' },
      { bootId: 'newer' },
      { named: older, current: newer },
      'stale-boot',
    ],
    [
      'that starts a running boot again',
      { boot: 'newer', phase: 'starting' },
      { bootId: 'newer', state: 'running' },
      { named: newer, current: newer },
      'stale-boot',
    ],
    [
      'that fails a running boot',
      { boot: 'newer', phase: 'failed' },
      { bootId: 'newer', state: 'running' },
      { named: newer, current: newer },
      'stale-boot',
    ],
  ]

for (const [title, checkIn, changes, boots, code] of refusals) {
  test(`decideCheckIn() refuses one ${title}`, (t) => {
    const outcome = decideCheckIn(checkIn, {
      machine: { ...machine, ...changes },
      named: boots.named,
      current: boots.current,
      nowMs: 100,
    })
    t.is(outcome.kind === 'refused' && outcome.code, code)
  })
}

test('decideCheckIn() moves the machine to the new boot and forgets what the old one said', (t) => {
  const outcome = decideCheckIn(
    { boot: 'newer', phase: 'starting' },
    {
      machine: {
        ...machine,
        state: 'running',
        bootId: 'older',
        imageVersion: '1',
        bundleDigest: 'b',
        rebootReasons: ['x'],
      },
      named: newer,
      current: older,
      nowMs: 100,
    },
  )
  t.deepEqual(outcome.kind === 'accepted' && outcome.machine, {
    ...machine,
    state: 'starting',
    bootId: 'newer',
    stateSinceMs: 100,
    lastSeenMs: 100,
    lastCheckInMs: 100,
  })
  t.deepEqual(outcome.kind === 'accepted' && outcome.events.map((event) => event.kind), ['checked-in'])
})

test('decideCheckIn() says nothing new for a heartbeat', (t) => {
  const running: Machine = {
    ...machine,
    state: 'running',
    bootId: 'newer',
    bundleDigest: 'b',
    stateSinceMs: 50,
  }
  const outcome = decideCheckIn(
    { boot: 'newer', phase: 'running', bundle: 'b' },
    { machine: running, named: newer, current: newer, nowMs: 100 },
  )
  t.like(outcome, { kind: 'accepted', machine: { stateSinceMs: 50, lastCheckInMs: 100 }, events: [] })
})

test('decideCheckIn() reports a bundle taken over while running, and why a reboot is needed', (t) => {
  const running: Machine = { ...machine, state: 'running', bootId: 'newer', bundleDigest: 'b' }
  const outcome = decideCheckIn(
    { boot: 'newer', phase: 'running', bundle: 'c', rebootReasons: ['/etc/fstab'] },
    { machine: running, named: newer, current: newer, nowMs: 100 },
  )
  t.deepEqual(outcome.kind === 'accepted' && outcome.events.map(({ kind, data }) => ({ kind, data })), [
    { kind: 'bundle-applied', data: { bundle: 'c', reboot: '/etc/fstab' } },
  ])
})

test('decideCheckIn() keeps what a machine says, and drops it with the next boot but for its disk', (t) => {
  const said: Omit<CheckIn, 'boot' | 'phase'> = {
    ...{ image: '2', bundle: 'b', slot: 'a', checks: 'failed', reason: 'no kubelet', drift: ['/etc/x'] },
    slots: { a: { state: 'trying', image: '2' }, b: { state: 'good', image: '1' } },
  }
  const first = after({}, { phase: 'running', ...said }, fromDisk).machine
  const { image, bundle, ...same } = said
  t.like(first, { ...same, imageVersion: image ?? '', bundleDigest: bundle ?? '', isInstalled: true })
  const next = after(first, { phase: 'starting' }, netboot('live', 50)).machine
  t.deepEqual([next.slots, next.isInstalled], [said.slots, true])
  for (const key of ['imageVersion', 'bundleDigest', 'slot', 'checks', 'reason', 'drift'] as const)
    t.is(next[key], undefined, key)
})

test('decideCheckIn() takes a live boot for what it is: nothing of the disk changes', (t) => {
  for (const isInstalled of [true, false, undefined]) {
    const before = {
      ...(isInstalled !== undefined && { isInstalled }),
      powerwash: { requestedMs: 1, persistence: 'keep' } as const,
    }
    const { machine: live } = after(before, { phase: 'running', image: '2' }, netboot('live'))
    t.is(live.isInstalled, isInstalled)
    t.deepEqual(live.powerwash, before.powerwash)
  }
})

test('decideCheckIn() ends a request when the disk begins to be made new, and remembers the word', (t) => {
  const slots: Slots = { a: { state: 'good', image: '1' }, b: { state: 'empty' } }
  const request = { requestedMs: 1, persistence: 'wipe' } as const
  const begun = after(
    { isInstalled: true, slots, powerwash: request, powerwashes: { word: 'old', toldBoot: 'x' } },
    { phase: 'installing' },
    netboot('powerwash-all'),
    { powerwashWord: 'new' },
  )
  t.like(begun.machine, {
    isInstalled: false,
    state: 'installing',
    powerwashes: { word: 'new', isWiping: true },
  })
  t.is(begun.machine.powerwash, undefined)
  t.is(begun.machine.slots, undefined)
  t.deepEqual(begun.kinds, ['checked-in', 'powerwash-begun'])
  const ran = after(begun.machine, { phase: 'running', slot: 'a', image: '2' }, netboot('powerwash-all'))
  t.deepEqual(ran.machine.powerwashes, { word: 'new' })
  t.deepEqual(ran.kinds, ['checked-in', 'installed'])
  const started = after(begun.machine, { phase: 'starting' }, fromDisk)
  t.deepEqual(started.machine.powerwashes, { word: 'new' }, 'its initrd started from the disk')
})

for (const boot of [netboot('live'), netboot('hold'), netboot('local-disk'), fromDisk]) {
  test(`decideCheckIn() does not let a boot with the plan ${boot.plan} make the disk new`, (t) => {
    const facts = { machine, named: boot, current: undefined, nowMs: 1 }
    t.like(decideCheckIn({ boot: boot.id, phase: 'installing' }, facts), {
      ...{ kind: 'refused', code: 'conflict' },
    })
  })
}

const good1: Slot = { state: 'good', image: '1' }
const lock: UpdateLock = { channel: 'stable', holder: mac, version: '2', sinceMs: 35 }

const news: readonly [
  string,
  Slot | undefined,
  Slot,
  kinds: readonly string[],
  hasFailed: boolean,
  Partial<CheckInFacts>?,
][] = [
  ['is written', { state: 'empty' }, { state: 'ready', image: '2' }, [], false],
  [
    'turns bad after its trial',
    { state: 'trying', image: '2' },
    { state: 'bad', image: '2', reason: 'panic' },
    ['slot-bad', 'update-failed'],
    true,
  ],
  ['turns bad unseen', undefined, { state: 'bad', image: '2' }, ['slot-bad', 'update-failed'], true],
  ['stays bad', { state: 'bad', image: '2' }, { state: 'bad', image: '2' }, [], false],
  [
    'was bad with another image',
    { state: 'bad', image: '0' },
    { state: 'bad', image: '2' },
    ['slot-bad', 'update-failed'],
    true,
  ],
  [
    'is bad again after an update',
    { state: 'bad', image: '2' },
    { state: 'bad', image: '2' },
    ['slot-bad', 'update-failed'],
    true,
    { lock },
  ],
  [
    'is still bad before the update',
    { state: 'bad', image: '2' },
    { state: 'bad', image: '2' },
    [],
    false,
    { lock: { ...lock, sinceMs: 41 } },
  ],
  [
    'was good and is damaged',
    { state: 'good', image: '2' },
    { state: 'bad', image: '2', reason: 'verity' },
    ['slot-bad'],
    false,
  ],
  ['turns bad without an image', { state: 'writing' }, { state: 'bad' }, ['slot-bad'], false],
  [
    'turns good while another one runs',
    { state: 'trying', image: '2' },
    { state: 'good', image: '2' },
    ['slot-good'],
    false,
  ],
]

for (const [title, was, now, kinds, hasFailed, facts] of news) {
  test(`decideCheckIn() tells of a slot that ${title}`, (t) => {
    const before: Partial<Machine> = {
      ...{ state: 'running', bootId: 'd', isInstalled: true, imageVersion: '1', slot: 'a' },
      ...(was && { slots: { a: good1, b: was } }),
    }
    const checkIn = { phase: 'running', image: '1', slot: 'a', slots: { a: good1, b: now } } as const
    const told = after(before, checkIn, fromDisk, { current: fromDisk, ...facts })
    const ofB = told.events.filter(({ data }) => data?.['slot'] !== 'a').map(({ kind }) => kind)
    t.deepEqual(ofB, [...kinds])
    t.deepEqual(
      told.failures.map(({ version }) => version),
      hasFailed ? ['2'] : [],
    )
  })
}

const bad2: Slot = { state: 'bad', image: '2', reason: 'did not come up in 3 tries' }

for (const phase of ['failed', 'installing'] as const) {
  test(`decideCheckIn() hears of a bad slot from an initrd that is ${phase}`, (t) => {
    const slots: Slots = { a: bad2, b: { state: 'empty' } }
    const told = after({ isInstalled: false }, { phase, image: '3', slots }, netboot('install'))
    t.deepEqual(told.kinds, ['checked-in', 'slot-bad', 'update-failed'])
    t.deepEqual(told.failures, [{ version: '2', reason: 'did not come up in 3 tries' }])
    t.is(told.events.at(-1)?.message, 'image 2 failed: did not come up in 3 tries')
    t.deepEqual(told.machine.slots, phase === 'failed' ? slots : undefined)
  })
}

test('decideCheckIn() turns back who would write what has just failed there, and lets it on when asked again', (t) => {
  const slots: Slots = { a: bad2, b: { state: 'empty' } }
  const powerwash = { requestedMs: 1, persistence: 'keep' } as const
  const facts = {
    machine: { ...machine, isInstalled: true, powerwash },
    named: netboot('powerwash'),
    current: undefined,
    nowMs: 100,
  }
  const checkIn = { boot: facts.named.id, phase: 'installing', image: '2', slots } as const
  const first = decideCheckIn(checkIn, facts)
  if (first.kind === 'refused') return t.fail(first.reason)
  t.regex(first.turnedBack ?? '', /image 2 has failed on this machine/)
  t.like(first.machine, { state: 'failed', isInstalled: true, powerwash, slots })
  t.deepEqual(
    first.failures.map(({ version }) => version),
    ['2'],
  )
  const again = decideCheckIn(checkIn, { ...facts, machine: first.machine, current: facts.named })
  if (again.kind === 'refused') return t.fail(again.reason)
  t.is(again.turnedBack, undefined)
  t.like(again.machine, { state: 'installing', isInstalled: false })
})

test('decideCheckIn() does not blame an image whose good slot was damaged', (t) => {
  const before: Partial<Machine> = { isInstalled: true, slots: { a: good1, b: { state: 'empty' } } }
  const slots: Slots = { a: { state: 'bad', image: '1', reason: 'verity' }, b: { state: 'empty' } }
  const told = after(before, { phase: 'installing', image: '1', slots }, netboot('install'))
  t.deepEqual(told.failures, [])
  t.is(told.machine.state, 'installing')
})

test('decideCheckIn() tells of an update when the new slot is good', (t) => {
  const before: Partial<Machine> = {
    ...{ state: 'running', bootId: 'd', isInstalled: true, imageVersion: '2', slot: 'b' },
    slots: { a: good1, b: { state: 'trying', image: '2' } },
  }
  const slots: Slots = { a: good1, b: { state: 'good', image: '2' } }
  const told = after(before, { phase: 'running', image: '2', slot: 'b', slots }, fromDisk, {
    current: fromDisk,
  })
  t.deepEqual(told.kinds, ['slot-good', 'updated'])
  t.deepEqual(told.events[1]?.data, { from: '1', to: '2' })
})

test('decideCheckIn() takes in a machine that runs from its disk although nobody knew it', (t) => {
  const { machine: taken, events } = after({}, { phase: 'running', slot: 'b', image: '2' }, fromDisk)
  t.true(taken.isInstalled)
  t.regex(events.find(({ kind }) => kind === 'installed')?.message ?? '', /did not install it/)
})

test('hostnameOf() falls back to the end of the MAC', (t) =>
  t.is(hostnameOf(mac, { mac, channel: 'stable', layers: [], settings: new Map() }), 'kit-74-00-01'))

test('loaderFor() names only loaders that are handed out', (t) => {
  for (const firmware of ['bios', 'uefi-x64', 'uefi-arm64'] as const)
    t.true(Object.hasOwn(LOADERS, loaderFor(firmware) ?? ''))
  t.is(loaderFor('unknown'), undefined)
})

// biome-ignore lint/suspicious/noTemplateCurlyInString: what iPXE would expand
for (const value of ['a || b', 'x=${uuid}', 'quiet #rest', 'end\\']) {
  test(`checkSetting() refuses the kernel arguments ${value}`, (t) => {
    t.regex(checkSetting('roles', 'kernel-arguments', value) ?? '', /iPXE/)
  })
}

test('checkSetting() takes usual kernel arguments', (t) => {
  t.is(checkSetting('roles', 'kernel-arguments', 'quiet mitigations=off root=PARTLABEL=a;b'), undefined)
})
