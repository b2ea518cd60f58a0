// Decisions about one machine: states, check-ins, boot plans.

import test from 'ava'

import type { ErrorCode } from '#lib/errors.ts'
import { parseMac } from '#lib/mac.ts'

import { hostnameOf } from './boot-plan.ts'
import { decideCheckIn } from './check-in.ts'
import { CHECK_IN_PHASES, type MachineState, nextState } from './lifecycle.ts'
import { LOADERS, loaderFor } from './loaders.ts'
import type { Boot, Machine } from './machine.ts'
import type { CheckIn } from './ports.ts'
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
