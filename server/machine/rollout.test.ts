// Which image a machine gets, when it may restart into it, and how a rollout goes on or stops: all pure.

import test from 'ava'
import fc from 'fast-check'

import { type Mac, parseMac } from '#lib/mac.ts'
import { bad, good, imageOf, ready, trying } from '#testing/registry-fixture.ts'

import { type ChoiceFacts, chooseForNew, chooseForRunning } from './image-choice.ts'
import type { Machine, Slot } from './machine.ts'
import type { Channel, Quarantine, UpdateFailure, UpdateLock } from './release-ports.ts'
import { decideRollout, type RolloutFacts, type RolloutMachine } from './rollout.ts'
import { updatePolicy } from './update-policy.ts'
import { findUpdateWindow } from './update-window.ts'

const macs = [1, 2, 3, 4].map((n) => parseMac(`02:00:00:00:00:0${n}`)) as [Mac, Mac, Mac, Mac]
const [m1, m2, m3, m4] = macs

const channel: Channel = { name: 'stable', version: '3', previous: ['2', '1'], isPaused: false, changedMs: 1 }
const quarantine = (version: string, mac = m1): Quarantine => ({ version, mac, reason: 'panic', sinceMs: 1 })
const failure = (version: string, mac = m1): UpdateFailure => ({ version, mac, reason: 'panic', atMs: 1 })

interface Choice {
  readonly has?: readonly string[]
  readonly pin?: string
  readonly inQuarantine?: readonly string[]
  readonly failed?: readonly string[]
  readonly isTolerated?: boolean
  readonly pointer?: Channel | null
}

function choiceFacts({
  has = ['1', '2', '3'],
  inQuarantine = [],
  failed = [],
  ...rest
}: Choice): ChoiceFacts {
  return {
    mac: m2,
    channel: 'stable',
    pointer: rest.pointer === null ? undefined : (rest.pointer ?? channel),
    pin: rest.pin,
    find: (version) => (has.includes(version) ? imageOf(version) : undefined),
    isEmpty: has.length === 0,
    quarantineOf: (version) => (inQuarantine.includes(version) ? quarantine(version) : undefined),
    failures: failed.map((version) => failure(version, m2)),
    isTolerated: rest.isTolerated ?? false,
  }
}

const choices: readonly [
  string,
  Choice,
  forNew: string | RegExp,
  runs: string,
  forRunning: string | RegExp,
][] = [
  ['of the channel', {}, '3', '1', '3'],
  ['that is pinned', { pin: '1' }, '1', '3', '1'],
  [
    'that is pinned and in quarantine',
    { pin: '1', inQuarantine: ['1'] },
    /pinned to 1, which is in quarantine/,
    '3',
    /pinned to 1/,
  ],
  [
    'that is pinned and gone',
    { pin: '0' },
    /pinned to 0, which this server does not have/,
    '3',
    /pinned to 0/,
  ],
  ['before one in quarantine', { inQuarantine: ['3'] }, '2', '2', '2'],
  ['before two of them', { inQuarantine: ['3', '2'] }, '1', '2', '2'],
  ['in quarantine that it runs', { inQuarantine: ['3'] }, '2', '3', '3'],
  ['in quarantine while its rollout goes on', { inQuarantine: ['3'], isTolerated: true }, '2', '2', '3'],
  ['before one that failed on it', { inQuarantine: ['3'], isTolerated: true, failed: ['3'] }, '2', '2', '2'],
  ['before one that is gone', { has: ['1', '2'] }, '2', '1', '2'],
  [
    'none when nothing is left',
    { has: ['3'], inQuarantine: ['3'] },
    /points at 3, which is in quarantine \(it failed on 02:00:00:00:00:01: panic\), and nothing before it/,
    '2',
    /nothing before it/,
  ],
  [
    'none of a channel that was never promoted',
    { pointer: null },
    'channel stable has no image: kateskit channel promote <version> stable',
    '2',
    /has no image/,
  ],
  ['none of an empty store', { has: [] }, 'the server has no image yet', '2', 'the server has no image yet'],
]

for (const [title, facts, forNew, runs, forRunning] of choices) {
  test(`chooseForNew(), chooseForRunning() give the image ${title}`, (t) => {
    for (const [choice, expected] of [
      [chooseForNew(choiceFacts(facts)), forNew],
      [chooseForRunning(choiceFacts(facts), { imageVersion: runs }), forRunning],
    ] as const) {
      const shown = choice.kind === 'chosen' ? choice.image.version : choice.reason
      if (typeof expected === 'string') t.is(shown, expected)
      else t.regex(shown, expected)
    }
  })
}

/** Runs image 2 from slot a, with another slot beside it. */
function machineWith(mac: Mac, b: Slot, others: Partial<Machine> = {}): Machine {
  return {
    ...{ mac, state: 'running', stateSinceMs: 1, firstSeenMs: 1, lastSeenMs: 1, rebootReasons: [] },
    ...{ isInstalled: true, imageVersion: '2', slot: 'a', slots: { a: good('2'), b } },
    ...others,
  }
}

/** Good on image 3, in slot b. */
const updated = (mac: Mac) => machineWith(mac, good('3'), { imageVersion: '3', slot: 'b' })
const onTrial = (mac: Mac) => machineWith(mac, trying('3'), { imageVersion: '3', slot: 'b' })

function member(machine: Machine, others: Partial<RolloutMachine> = {}): RolloutMachine {
  const flags = { isPinned: false, isCanary: false, isControlPlane: false, isWindowOpen: true, silentMs: 0 }
  return { machine, wanted: '3', ...flags, ...others }
}

const policy = (atOnce = '1', haltAfter = '1') =>
  updatePolicy({
    ...{ mac: m1, channel: 'stable', layers: [] },
    settings: new Map([
      ['update-at-once', { value: atOnce, layer: '', file: '' }],
      ['update-halt-after', { value: haltAfter, layer: '', file: '' }],
    ]),
  })

const lockOf = (mac: Mac, version = '3'): UpdateLock => ({
  channel: 'stable',
  holder: mac,
  version,
  sinceMs: 1,
})
const foreign: UpdateLock = { channel: 'stable', holder: 'fleetlock:x', sinceMs: 1 }

function decide(machines: readonly RolloutMachine[], others: Partial<RolloutFacts> = {}) {
  return decideRollout({
    ...{ channel, machines, policy: policy(), locks: [], failures: [], quarantine: undefined },
    otherControlPlanes: 0,
    ...others,
  })
}

const staged = (mac: Mac, others: Partial<RolloutMachine> = {}) =>
  member(machineWith(mac, ready('3')), others)
const notStaged = (mac: Mac, others: Partial<RolloutMachine> = {}) =>
  member(machineWith(mac, { state: 'empty' }), others)

const failing = (...macs: readonly Mac[]) => ({
  failures: macs.map((mac) => failure('3', mac)),
  quarantine: quarantine('3', macs[0] ?? m1),
})
const failedMachine = (mac: Mac, others: Partial<RolloutMachine> = {}) =>
  member(machineWith(mac, bad('3')), { wanted: '2', ...others })

const grants: readonly [string, readonly RolloutMachine[], Partial<RolloutFacts>, readonly Mac[]][] = [
  ['one at a time, by MAC', [staged(m2), staged(m1)], {}, [m1]],
  ['nobody before it has the image', [notStaged(m1), staged(m2)], {}, [m2]],
  ['nobody who has another image ready', [member(machineWith(m1, ready('2.5')))], {}, []],
  ['nobody while another one holds it', [staged(m1), staged(m2)], { locks: [lockOf(m1)] }, []],
  ['nobody while another tool holds it', [staged(m1)], { locks: [foreign] }, []],
  ['several by number', macs.map((mac) => staged(mac)), { policy: policy('3') }, [m1, m2, m3]],
  ['several by share', macs.map((mac) => staged(mac)), { policy: policy('50%') }, [m1, m2]],
  ['at least one by share', macs.map((mac) => staged(mac)), { policy: policy('1%') }, [m1]],
  [
    'several less those of other tools',
    macs.map((mac) => staged(mac)),
    { policy: policy('3'), locks: [foreign] },
    [m1, m2],
  ],
  [
    'one control plane at a time',
    macs.map((mac) => staged(mac, { isControlPlane: mac !== m4 })),
    { policy: policy('4') },
    [m1, m4],
  ],
  [
    'no control plane while one of another channel restarts',
    [staged(m1, { isControlPlane: true }), staged(m2)],
    { otherControlPlanes: 1 },
    [m2],
  ],
  ['the canary first', [staged(m1), staged(m2, { isCanary: true })], { policy: policy('2') }, [m2]],
  ['the others when the canary is good', [staged(m1), member(updated(m2), { isCanary: true })], {}, [m1]],
  ['nobody while the canary is on trial', [staged(m1), member(onTrial(m2), { isCanary: true })], {}, []],
  ['nobody outside its window', [staged(m1, { isWindowOpen: false }), staged(m2)], {}, [m2]],
  ['nobody who is away', [staged(m1, { silentMs: 16 * 60_000 }), staged(m2)], {}, [m2]],
  ['nobody of a paused channel', [staged(m1)], { channel: { ...channel, isPaused: true } }, []],
  [
    'who is pinned, though it is paused',
    [staged(m1, { isPinned: true })],
    { channel: { ...channel, isPaused: true } },
    [m1],
  ],
  [
    'nobody after a failure',
    [staged(m1), staged(m2)],
    { failures: [failure('3', m3)], quarantine: quarantine('3', m3) },
    [],
  ],
  [
    'who goes back to what was before',
    [member(machineWith(m1, ready('1')), { wanted: '1' })],
    { quarantine: quarantine('3', m3) },
    [m1],
  ],
  [
    'the next canary after the first has failed, when it takes more',
    [failedMachine(m1, { isCanary: true }), staged(m2), staged(m3, { isCanary: true })],
    { ...failing(m1), policy: policy('1', '2') },
    [m3],
  ],
  ['nobody who does not run', [member(machineWith(m1, ready('3'), { state: 'starting' }))], {}, []],
]

for (const [title, machines, others, expected] of grants) {
  test(`decideRollout() lets restart ${title}`, (t) => {
    const decision = decide(machines, others)
    t.deepEqual(
      decision.grants.map(({ mac }) => mac),
      expected,
    )
    const mayReboot = [...decision.permits].filter(([, permit]) => permit.mayReboot).map(([mac]) => mac)
    const holders = (others.locks ?? [])
      .map(({ holder }) => holder as Mac)
      .filter((mac) => macs.includes(mac))
    t.deepEqual(mayReboot.toSorted(), [...expected, ...holders].toSorted())
  })
}

const permits: readonly [string, readonly RolloutMachine[], Partial<RolloutFacts>, string][] = [
  ['everybody', [notStaged(m1), notStaged(m2)], {}, 'yy'],
  ['nobody who has it', [member(updated(m1)), notStaged(m2)], {}, 'ny'],
  [
    'nobody who should have nothing',
    [member(machineWith(m1, ready('2'))), { ...notStaged(m2), wanted: '2' }],
    {},
    'yn',
  ],
  ['also outside the window', [notStaged(m1, { isWindowOpen: false })], {}, 'y'],
  ['only the canary at first', [notStaged(m1, { isCanary: true }), notStaged(m2)], {}, 'yn'],
  ['nobody of a paused channel', [notStaged(m1)], { channel: { ...channel, isPaused: true } }, 'n'],
  ['nobody of one in quarantine', [notStaged(m1)], { quarantine: quarantine('3', m4) }, 'n'],
  [
    'nobody in a live boot',
    [member({ ...machineWith(m1, ready('2')), slot: undefined } as unknown as Machine)],
    {},
    'n',
  ],
]

for (const [title, machines, others, expected] of permits) {
  test(`decideRollout() lets write the other slot ${title}`, (t) => {
    const decision = decide(machines, others)
    t.is([...decision.permits.values()].map(({ mayStage }) => (mayStage ? 'y' : 'n')).join(''), expected)
  })
}

const HOUR = 3_600_000
const over: readonly [string, RolloutMachine, Partial<RolloutFacts>, 'kept' | 'released' | 'lost'][] = [
  [
    'keeps the lock of a machine on its way',
    member(machineWith(m1, ready('3'), { state: 'starting' })),
    {},
    'kept',
  ],
  ['keeps it on trial', member(onTrial(m1)), {}, 'kept'],
  ['takes it when the machine is good', member(updated(m1)), {}, 'released'],
  ['keeps it when the window has closed', staged(m1, { isWindowOpen: false }), {}, 'kept'],
  [
    'takes it when it checks in behind the window',
    staged(m1, { isWindowOpen: false }),
    { checkedIn: m1 },
    'released',
  ],
  [
    'keeps it when the loader has the image already',
    member(machineWith(m1, trying('3')), { isWindowOpen: false }),
    { checkedIn: m1 },
    'kept',
  ],
  ['keeps it when it checks in before it restarts', staged(m1), { checkedIn: m1 }, 'kept'],
  [
    'takes it when it checks in while paused',
    staged(m1),
    { checkedIn: m1, channel: { ...channel, isPaused: true } },
    'released',
  ],
  ['takes it when it should have another image', staged(m1, { wanted: '4' }), { checkedIn: m1 }, 'released'],
  ['keeps it until it says so', staged(m1, { wanted: '4' }), {}, 'kept'],
  ['keeps it of one silent for less than an hour', staged(m1, { silentMs: HOUR - 1 }), {}, 'kept'],
  ['gives up one silent for an hour', staged(m1, { silentMs: HOUR }), {}, 'lost'],
  ['gives up one silent on trial', member(onTrial(m1), { silentMs: HOUR }), {}, 'lost'],
  ['takes it of one that is good and silent', member(updated(m1), { silentMs: HOUR }), {}, 'released'],
]

for (const [title, machine, others, expected] of over) {
  test(`decideRollout() ${title}`, (t) => {
    const { released, lost } = decide([machine], { locks: [lockOf(m1)], ...others })
    t.is(released.includes(m1) ? 'released' : lost.length > 0 ? 'lost' : 'kept', expected)
  })
}

test('decideRollout() takes the lock of a machine that is not there any more, and leaves those of other tools', (t) => {
  t.deepEqual(decide([], { locks: [lockOf(m1), foreign] }).released, [m1])
})

const states: readonly [string, readonly RolloutMachine[], Partial<RolloutFacts>, string, RegExp?][] = [
  ['done when all are good', [member(updated(m1)), member(updated(m2))], {}, 'done'],
  ['done without machines', [], {}, 'done'],
  ['done though it is paused', [member(updated(m1))], { channel: { ...channel, isPaused: true } }, 'done'],
  [
    'done for those not pinned elsewhere',
    [member(updated(m1)), staged(m2, { isPinned: true, wanted: '2' })],
    {},
    'done',
  ],
  ['running', [member(updated(m1)), staged(m2)], {}, 'running'],
  ['running on trial', [member(onTrial(m1))], {}, 'running'],
  ['running, held by another tool', [staged(m1)], { locks: [foreign] }, 'running', /held by fleetlock:x/],
  [
    'running, waiting for windows',
    [staged(m1, { isWindowOpen: false })],
    {},
    'running',
    /no update window is open/,
  ],
  [
    'running, waiting for canaries',
    [staged(m1), staged(m2, { isCanary: true })],
    {},
    'running',
    /canaries come first: 02:00:00:00:00:02/,
  ],
  [
    'running, waiting for who is away',
    [staged(m1, { silentMs: HOUR })],
    {},
    'running',
    /not heard of lately: 02:00:00:00:00:01/,
  ],
  ['paused', [staged(m1)], { channel: { ...channel, isPaused: true } }, 'paused', /channel stable is paused/],
  [
    'quarantined after a failure elsewhere',
    [staged(m1)],
    { quarantine: quarantine('3', m4) },
    'quarantined',
    /image 3 failed on 02:00:00:00:00:04: panic/,
  ],
  ['quarantined when nobody is left', [failedMachine(m1)], failing(m1), 'quarantined'],
  [
    'halted while others wait',
    [failedMachine(m1), notStaged(m2)],
    failing(m1),
    'halted',
    /failed on 1 machine .*update-halt-after is 1/,
  ],
  [
    'running after fewer failures than it takes',
    [failedMachine(m1), staged(m2)],
    { ...failing(m1), policy: policy('1', '2') },
    'running',
  ],
  [
    'halted after the second',
    [failedMachine(m1), failedMachine(m2), notStaged(m3)],
    { ...failing(m1, m2), policy: policy('1', '2') },
    'halted',
    /failed on 2 machines \(02:00:00:00:00:01, 02:00:00:00:00:02\), update-halt-after is 2/,
  ],
  [
    'halted when the only canary has failed, whatever it takes',
    [failedMachine(m1, { isCanary: true }), notStaged(m2)],
    { ...failing(m1), policy: policy('1', '5') },
    'halted',
    /a canary is among them/,
  ],
  [
    'running while another canary is left to try',
    [failedMachine(m1, { isCanary: true }), staged(m2, { isCanary: true }), notStaged(m3)],
    { ...failing(m1), policy: policy('1', '5') },
    'running',
    /canaries come first/,
  ],
]

for (const [title, machines, others, state, reason] of states) {
  test(`decideRollout() is ${title}`, (t) => {
    const decision = decide(machines, others)
    t.is(decision.state, state as typeof decision.state)
    if (reason) t.regex(decision.reason ?? '', reason)
  })
}

test('decideRollout() sorts the machines', (t) => {
  const machines = [member(updated(m1)), staged(m2), failedMachine(m3), notStaged(m4)]
  t.like(decide(machines, { locks: [lockOf(m2)], ...failing(m3), policy: policy('1', '2') }), {
    ...{ done: [m1], updating: [m2], waiting: [m4], failed: [m3] },
    atOnce: 1,
  })
})

test('decideRollout() never lets more restart than allowed, nor two control planes', (t) => {
  const kinds = [staged, notStaged, (mac: Mac) => member(onTrial(mac)), (mac: Mac) => member(updated(mac))]
  const machine = fc.record({
    kind: fc.nat(3),
    isControlPlane: fc.boolean(),
    holds: fc.boolean(),
    isCanary: fc.boolean(),
  })
  const facts = fc.record({
    machines: fc.array(machine, { minLength: 4, maxLength: 4 }),
    atOnce: fc.integer({ min: 1, max: 4 }),
  })
  fc.assert(
    fc.property(facts, ({ machines, atOnce }) => {
      const members = machines.map((one, index) => ({
        ...(kinds[one.kind] ?? staged)(macs[index] ?? m1),
        ...{ isControlPlane: one.isControlPlane, isCanary: one.isCanary },
      }))
      const before = machines.flatMap((one, index) => (one.holds ? [lockOf(macs[index] ?? m1)] : []))
      const decision = decide(members, { locks: before, policy: policy(`${atOnce}`) })
      const held = before
        .filter(({ holder }) => !decision.released.includes(holder))
        .map(({ holder }) => holder)
      const after = [...held, ...decision.grants.map(({ mac }) => mac as string)]
      if (decision.grants.length > 0 && after.length > atOnce) return false
      const controlPlanes = after.filter((mac) =>
        members.some((one) => one.machine.mac === mac && one.isControlPlane),
      )
      const granted = decision.grants.some(({ mac }) => controlPlanes.includes(mac))
      return new Set(after).size === after.length && (!granted || controlPlanes.length === 1)
    }),
  )
  t.pass()
})

test('updatePolicy() has the built-in values without a machine', (t) => {
  t.is(updatePolicy(undefined).atOnce(10), 1)
  t.is(updatePolicy(undefined).haltAfter, 1)
})

const BERLIN = 'Mon-Fri 22:00-04:00 Europe/Berlin'
const windows: readonly [string, string, isOpen: boolean][] = [
  ['always', '2026-11-21T12:00:00Z', true],
  ['never', '2026-11-21T12:00:00Z', false],
  // Friday 2026-11-20, Berlin is an hour ahead.
  [BERLIN, '2026-11-20T20:59:59Z', false],
  [BERLIN, '2026-11-20T21:00:00Z', true],
  [BERLIN, '2026-11-21T02:59:59Z', true],
  [BERLIN, '2026-11-21T03:00:00Z', false],
  [BERLIN, '2026-11-21T21:30:00Z', false],
  // Sunday night belongs to Sunday; Monday's begins at 22:00.
  [BERLIN, '2026-11-23T01:00:00Z', false],
  ['Fri-Mon 01:00-02:00 UTC', '2026-11-22T01:30:00Z', true],
  ['Fri-Mon 01:00-02:00 UTC', '2026-11-24T01:30:00Z', false],
  ['Wed,Sat 00:00-24:00 UTC', '2026-11-21T23:59:00Z', true],
  ['Wed,Sat 00:00-24:00 UTC', '2026-11-22T00:00:00Z', false],
  ['Mon 01:00-02:00 UTC; Sat 11:00-13:00 UTC', '2026-11-21T12:00:00Z', true],
  // In the night to 2026-03-29 Berlin's clocks go from 02:00 to 03:00: the hour between is left out …
  ['02:00-03:00 Europe/Berlin', '2026-03-29T00:59:00Z', false],
  ['02:00-03:00 Europe/Berlin', '2026-03-29T01:00:00Z', false],
  // … and what lasts until 04:00 ends at 02:00 UTC instead of 03:00.
  [BERLIN.replace('Mon-Fri ', ''), '2026-03-29T01:59:00Z', true],
  [BERLIN.replace('Mon-Fri ', ''), '2026-03-29T02:00:00Z', false],
  // In the night to 2026-10-25 the hour from 02:00 comes twice, and both count.
  ['02:00-03:00 Europe/Berlin', '2026-10-25T00:30:00Z', true],
  ['02:00-03:00 Europe/Berlin', '2026-10-25T01:30:00Z', true],
  ['02:00-03:00 Europe/Berlin', '2026-10-25T02:00:00Z', false],
]

for (const [text, time, isOpen] of windows) {
  test(`findUpdateWindow() of ${text} is ${isOpen ? 'open' : 'closed'} at ${time}`, (t) => {
    t.is(findUpdateWindow(text)?.isOpen(Date.parse(time)), isOpen)
  })
}

test("findUpdateWindow() takes the server's time zone when none is named", (t) => {
  const noon = new Date(2026, 10, 21, 12).getTime()
  t.true(findUpdateWindow('11:59-12:01')?.isOpen(noon))
  t.false(findUpdateWindow('12:01-11:59')?.isOpen(noon))
})
