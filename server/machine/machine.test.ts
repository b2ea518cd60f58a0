// Decisions about one machine: states, check-ins, boot plans.

import test from 'ava'

import type { ErrorCode } from '#lib/errors.ts'
import { parseMac } from '#lib/mac.ts'

import {
  type BootPlanKind,
  type BundleOutcome,
  decideBootPlan,
  decideTarget,
  hostnameOf,
  liveKernelArguments,
} from './boot-plan.ts'
import { decideCheckIn } from './check-in.ts'
import { CHECK_IN_PHASES, type MachineState, nextState } from './lifecycle.ts'
import { LOADERS, loaderFor } from './loaders.ts'
import type { Boot, Machine } from './machine.ts'
import type { CheckIn, Image } from './ports.ts'
import type { Profile } from './profile.ts'
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

for (const state of ['discovered', 'starting', 'running', 'failed'] satisfies MachineState[]) {
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

const image: Image = {
  version: '0.1.0',
  arch: 'amd64',
  files: new Map([['root.squashfs', { name: 'root.squashfs', sizeBytes: 5, sha256: 'aa', file: '/x' }]]),
}
const bundle: BundleOutcome = { kind: 'made', bundle: { digest: 'bb', sizeBytes: 3, file: '/y' } }
const noBundle: BundleOutcome = { kind: 'refused', reason: 'a device node in root/' }

function profileWith(settings: Record<string, string>): Profile {
  return {
    mac,
    ...(settings['role'] === undefined ? {} : { role: settings['role'] }),
    channel: 'stable',
    layers: [],
    settings: new Map(
      Object.entries(settings).map(([key, value]) => [key, { value, layer: 'defaults', file: key }]),
    ),
  }
}

const plans: readonly [
  string,
  Record<string, string>,
  Image | undefined,
  BundleOutcome,
  BootPlanKind,
  hasTarget: boolean,
][] = [
  ['no role', {}, image, bundle, 'local-disk', false],
  ['no role whatever boot says', { boot: 'live' }, image, bundle, 'local-disk', false],
  ['a role', { role: 'worker' }, image, bundle, 'live', true],
  ['a role and boot local-disk', { role: 'worker', boot: 'local-disk' }, image, bundle, 'local-disk', true],
  ['a role and boot hold', { role: 'worker', boot: 'hold' }, image, bundle, 'hold', true],
  ['no image', { role: 'worker' }, undefined, bundle, 'hold', false],
  ['no bundle', { role: 'worker' }, image, noBundle, 'hold', false],
]

for (const [title, settings, anImage, outcome, kind, hasTarget] of plans) {
  const profile = profileWith(settings)
  test(`decideBootPlan() is ${kind} with ${title}`, (t) => {
    t.is(decideBootPlan(profile, anImage, outcome).kind, kind)
  })

  test(`decideTarget() is ${hasTarget ? 'the image and bundle' : 'nothing'} with ${title}`, (t) => {
    const target = hasTarget ? { imageVersion: '0.1.0', bundleDigest: 'bb' } : undefined
    t.deepEqual(decideTarget(profile, anImage, outcome), target)
  })
}

test('decideBootPlan() holds a machine with the reason why it has no bundle', (t) => {
  t.deepEqual(decideBootPlan(profileWith({ role: 'worker' }), image, noBundle), {
    kind: 'hold',
    reason: 'a device node in root/',
  })
})

test('decideTarget() gives nothing of a profile that is broken', (t) => {
  const profile = { ...profileWith({ role: 'worker' }), broken: 'roles/worker is in error' }
  t.is(decideTarget(profile, image, bundle), undefined)
})

test('liveKernelArguments() names everything the initrd needs', (t) => {
  const profile = profileWith({
    role: 'worker',
    console: 'tty0 ttyS0',
    hostname: 'n1',
    'kernel-arguments': 'quiet panic=5',
  })
  const plan = decideBootPlan(profile, image, bundle)
  if (plan.kind !== 'live') return t.fail(plan.reason)
  t.is(
    liveKernelArguments(plan, { id: 'b1', baseUrl: 'http://10.77.0.1:8080' }),
    'console=tty0 console=ttyS0 kit.url=http://10.77.0.1:8080 kit.mac=02-4b-69-74-00-01 kit.boot=b1 kit.image=0.1.0 ' +
      'kit.root-sha256=aa kit.root-size=5 kit.bundle=bb systemd.hostname=n1 quiet panic=5',
  )
})

test('hostnameOf() falls back to the end of the MAC', (t) =>
  t.is(hostnameOf(mac, profileWith({})), 'kit-74-00-01'))

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
