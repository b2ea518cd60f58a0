// What a netboot does: plans, powerwashes and that none of them begins by itself, kernel arguments, targets.

import test from 'ava'
import fc from 'fast-check'

import { parseMac } from '#lib/mac.ts'
import { imageOf, SERVER } from '#testing/registry-fixture.ts'

import {
  type BootFacts,
  type BootPlanKind,
  type BundleOutcome,
  decideBootPlan,
  diskArguments,
  kernelArguments,
} from './boot-plan.ts'
import { decideCheckIn } from './check-in.ts'
import type { ImageChoice } from './image-choice.ts'
import type { Boot, Machine, Slots } from './machine.ts'
import type { Profile } from './profile.ts'
import { decideTarget, type TargetFacts } from './target.ts'

const mac = parseMac('02:4b:69:74:00:01')
const fresh: Machine = {
  ...{ mac, state: 'discovered', stateSinceMs: 1, firstSeenMs: 1, lastSeenMs: 1, rebootReasons: [] },
}
const installed: Machine = { ...fresh, state: 'running', isInstalled: true, bootId: 'b0', slot: 'a' }
const halfway: Machine = { ...fresh, state: 'installing', isInstalled: false }
const keep = { requestedMs: 1, persistence: 'keep' } as const
const wipe = { requestedMs: 1, persistence: 'wipe' } as const

const image: ImageChoice = { kind: 'chosen', image: imageOf('0.1.0') }
const noImage: ImageChoice = { kind: 'none', reason: 'the server has no image yet' }
const bundle: BundleOutcome = { kind: 'made', bundle: { digest: 'bb', sizeBytes: 3, file: '/y' } }
const noBundle: BundleOutcome = { kind: 'refused', reason: 'a device node in root/' }

function profileWith(settings: Record<string, string>): Profile {
  const all = { boot: 'install', ...settings }
  return {
    mac,
    ...(settings['role'] === undefined ? {} : { role: settings['role'] }),
    channel: 'stable',
    layers: [],
    settings: new Map(
      Object.entries(all).map(([key, value]) => [key, { value, layer: 'defaults', file: key }]),
    ),
  }
}

const bothBad: Slots = { a: { state: 'bad', image: '1' }, b: { state: 'bad', image: '2' } }

/** Asked by the iPXE on its disk. */
const recover: Partial<BootFacts> = { wish: 'recover' }
const flagged: Machine = { ...installed, powerwash: keep }

type Case = readonly [
  title: string,
  settings: Record<string, string>,
  machine: Machine | undefined,
  kind: BootPlanKind,
  others?: Partial<BootFacts>,
]

const plans: readonly Case[] = [
  ['no role', {}, fresh, 'local-disk'],
  ['no role whatever boot says', { boot: 'live' }, fresh, 'local-disk'],
  [
    'no role whatever was asked for',
    {},
    { ...installed, powerwash: wipe },
    'local-disk',
    { wish: 'powerwash' },
  ],
  ['a role', { role: 'worker' }, fresh, 'install'],
  ['a role and a machine never seen', { role: 'worker' }, undefined, 'install'],
  ['boot live', { role: 'worker', boot: 'live' }, fresh, 'live'],
  ['boot live, though it is installed', { role: 'worker', boot: 'live' }, installed, 'live'],
  ['boot local-disk', { role: 'worker', boot: 'local-disk' }, fresh, 'local-disk'],
  ['boot hold', { role: 'worker', boot: 'hold' }, fresh, 'hold'],
  [
    'boot hold, whatever was asked for',
    { role: 'worker', boot: 'hold' },
    { ...installed, powerwash: keep },
    'hold',
  ],
  ['no image', { role: 'worker' }, fresh, 'hold', { image: noImage }],
  ['no image, when it is installed', { role: 'worker' }, installed, 'local-disk', { image: noImage }],
  ['no bundle', { role: 'worker' }, fresh, 'hold', { bundle: noBundle }],
  ['an installation that was cut short', { role: 'worker' }, halfway, 'install'],
  [
    'an installation that was cut short and boot local-disk',
    { role: 'worker', boot: 'local-disk' },
    halfway,
    'install',
  ],
  ['an installed machine', { role: 'worker' }, installed, 'local-disk'],
  ['both slots bad', { role: 'worker' }, { ...installed, slots: bothBad }, 'install'],
  ['a powerwash asked for', { role: 'worker' }, { ...installed, powerwash: keep }, 'powerwash'],
  ['one that wipes', { role: 'worker' }, { ...installed, powerwash: wipe }, 'powerwash-all'],
  [
    'one and boot local-disk',
    { role: 'worker', boot: 'local-disk' },
    { ...installed, powerwash: keep },
    'powerwash',
  ],
  ['one for a live machine', { role: 'worker', boot: 'live' }, { ...fresh, powerwash: keep }, 'live'],
  ['a new word', { role: 'worker', powerwash: 'now' }, installed, 'powerwash'],
  [
    'a word that was carried out',
    { role: 'worker', powerwash: 'now' },
    { ...installed, powerwashes: { word: 'now' } },
    'local-disk',
  ],
  ['a wipe cut short', { role: 'worker' }, { ...halfway, powerwashes: { isWiping: true } }, 'powerwash-all'],
  ['a wish', { role: 'worker' }, installed, 'powerwash', { wish: 'powerwash' }],
  ['a wish on a live machine', { role: 'worker', boot: 'live' }, fresh, 'live', { wish: 'powerwash' }],
  ['netboot-means powerwash', { role: 'worker', 'netboot-means': 'powerwash' }, installed, 'powerwash'],
  ['it, not installed', { role: 'worker', 'netboot-means': 'powerwash' }, fresh, 'install'],
  ['it, halfway', { role: 'worker', 'netboot-means': 'powerwash' }, halfway, 'install'],
  [
    'it, sent to the network by us',
    { role: 'worker', 'netboot-means': 'powerwash' },
    { ...installed, powerwashes: { toldBoot: 'b0' } },
    'local-disk',
  ],
  ['nothing to start on its disk', { role: 'worker' }, installed, 'install', recover],
  ['nothing to start, and a powerwash', { role: 'worker' }, flagged, 'powerwash', recover],
  ['nothing to start, and no role', {}, installed, 'hold', recover],
  [
    'nothing to start, and boot local-disk',
    { role: 'worker', boot: 'local-disk' },
    installed,
    'hold',
    recover,
  ],
  ['nothing to start, and boot live', { role: 'worker', boot: 'live' }, installed, 'live', recover],
  ['nothing to start, and no image', { role: 'worker' }, installed, 'hold', { ...recover, image: noImage }],
  [
    'nothing to start, whatever a netboot means',
    { role: 'worker', 'netboot-means': 'powerwash' },
    installed,
    'install',
    recover,
  ],
  [
    'nothing to start after a wipe cut short',
    { role: 'worker' },
    { ...halfway, powerwashes: { isWiping: true } },
    'powerwash-all',
    recover,
  ],
]

for (const [title, settings, machine, kind, others] of plans) {
  test(`decideBootPlan() is ${kind} with ${title}`, (t) => {
    t.is(decideBootPlan({ profile: profileWith(settings), machine, image, bundle, ...others }).kind, kind)
  })
}

test('decideBootPlan() offers the menu to an installed machine only', (t) => {
  const plan = (settings: Record<string, string>, machine: Machine) =>
    decideBootPlan({ profile: profileWith(settings), machine, image, bundle })
  t.like(plan({ role: 'worker' }, installed), { menu: true })
  t.false('menu' in plan({}, fresh))
  t.false('menu' in plan({ role: 'worker', boot: 'local-disk' }, fresh))
})

test('decideBootPlan() holds with the reason', (t) => {
  const facts = { profile: profileWith({ role: 'worker' }), machine: fresh, image, bundle }
  const reason = (others: Partial<BootFacts>) => decideBootPlan({ ...facts, ...others })
  t.deepEqual(reason({ ...recover, profile: profileWith({}) }), {
    kind: 'hold',
    reason: 'it comes from its own disk, and this machine has no role yet: kateskit assign <mac> <role>',
  })
  t.deepEqual(reason({ bundle: noBundle }), { kind: 'hold', reason: 'a device node in root/' })
  t.deepEqual(reason({ image: noImage }), { kind: 'hold', reason: 'the server has no image yet' })
  const broken = { ...facts.profile, broken: 'roles/worker is in error' }
  t.deepEqual(reason({ profile: broken }), { kind: 'hold', reason: 'roles/worker is in error' })
  const liveOnly: ImageChoice = { kind: 'chosen', image: imageOf('0.2.0', '') }
  t.regex(JSON.stringify(reason({ image: liveOnly })), /image 0\.2\.0 has no root hash/)
  t.is(reason({ image: liveOnly, profile: profileWith({ role: 'worker', boot: 'live' }) }).kind, 'live')
})

/** What a machine does, step by step, as this server hears of it. */
const STEPS = ['netboot', 'begin', 'reboot', 'run', 'request', 'wish', 'told'] as const

test('no netboots make two powerwashes of one installation without a request or a system that ran in between', (t) => {
  const setting = fc.constantFrom<Record<string, string>>(
    { 'netboot-means': 'powerwash' },
    { 'netboot-means': 'powerwash', powerwash: 'word' },
    { 'netboot-means': 'local-disk', powerwash: 'word' },
    { 'netboot-means': 'powerwash', boot: 'local-disk' },
  )
  const steps = fc.array(fc.constantFrom(...STEPS), { maxLength: 40 })
  fc.assert(
    fc.property(setting, steps, (settings, sequence) => {
      const profile = profileWith({ role: 'worker', ...settings })
      let machine: Machine = { ...installed, powerwashes: { word: 'word' } }
      let boot: Boot | undefined
      let minted = 0
      /** Powerwashes that began since the last request, or the last system that ran. */
      let begun = 0
      for (const step of sequence) {
        minted += 1
        if (step === 'request') [machine, begun] = [{ ...machine, powerwash: keep }, 0]
        if (step === 'told') {
          machine = { ...machine, powerwashes: { ...machine.powerwashes, toldBoot: machine.bootId ?? '' } }
        }
        if (step === 'wish') begun = 0
        if (step === 'netboot' || step === 'wish') {
          const wish = step === 'wish' ? { wish: 'powerwash' as const } : {}
          const { kind } = decideBootPlan({ profile, machine, image, bundle, ...wish })
          boot = { id: `b${minted}`, mac, mintedMs: minted, plan: kind }
        }
        if (step === 'reboot') boot = { id: `b${minted}`, mac, mintedMs: minted, plan: 'disk' }
        if (boot === undefined || (step !== 'begin' && step !== 'run')) continue
        // A boot that has begun says so again and again; that is one powerwash.
        const isNew = machine.bootId !== boot.id || machine.state !== 'installing'
        const checkIn =
          step === 'begin'
            ? ({ boot: boot.id, phase: 'installing' } as const)
            : ({ boot: boot.id, phase: 'running', slot: 'a' } as const)
        const current = { id: machine.bootId ?? '', mac, mintedMs: 0, plan: 'disk' } as const
        const outcome = decideCheckIn(checkIn, {
          ...{ machine, named: boot, current, nowMs: minted, powerwashWord: settings['powerwash'] },
        })
        if (outcome.kind === 'refused') continue
        if (step === 'begin' && boot.plan !== 'install' && isNew) begun += 1
        if (step === 'run') begun = 0
        machine = outcome.machine
        if (begun > 1) return false
      }
      return true
    }),
    { numRuns: 2_000 },
  )
  t.pass()
})

test('a powerwash asked for in any way is carried out once', (t) => {
  const ways: readonly [Record<string, string>, Partial<Machine>, 'powerwash' | undefined][] = [
    [{}, { powerwash: keep }, undefined],
    [{ powerwash: 'word' }, {}, undefined],
    [{}, {}, 'powerwash'],
    [{ 'netboot-means': 'powerwash' }, {}, undefined],
    [{ 'netboot-means': 'powerwash', powerwash: 'word' }, { powerwash: keep }, 'powerwash'],
  ]
  for (const [settings, changes, wish] of ways) {
    const profile = profileWith({ role: 'worker', ...settings })
    const machine: Machine = { ...installed, ...changes }
    const first = decideBootPlan({ profile, machine, image, bundle, ...(wish && { wish }) })
    t.is(first.kind, 'powerwash')
    const named: Boot = { id: 'b1', mac, mintedMs: 5, plan: first.kind }
    const facts = { machine, named, current: undefined, nowMs: 6, powerwashWord: settings['powerwash'] }
    const begun = decideCheckIn({ boot: 'b1', phase: 'installing' }, facts)
    if (begun.kind === 'refused') return t.fail(begun.reason)
    t.is(begun.machine.powerwash, undefined)
    for (let cut = 0; cut < 3; cut += 1) {
      t.is(decideBootPlan({ profile, machine: begun.machine, image, bundle }).kind, 'install')
    }
    const ran = decideCheckIn(
      { boot: 'b1', phase: 'running', slot: 'a' },
      { ...facts, machine: begun.machine },
    )
    if (ran.kind === 'refused') return t.fail(ran.reason)
    const expected = settings['netboot-means'] === 'powerwash' ? 'powerwash' : 'local-disk'
    t.is(decideBootPlan({ profile, machine: ran.machine, image, bundle }).kind, expected, 'it has run since')
  }
})

test('kernelArguments() names everything the initrd needs', (t) => {
  const settings = {
    role: 'worker',
    console: 'tty0 ttyS0',
    hostname: 'n1',
    'kernel-arguments': 'quiet panic=5',
  }
  const boot = { ...SERVER, id: 'b1', nowMs: 1_700_000_000_999 }
  const own =
    `panic=10 kit.url=http://10.77.0.1:8080 kit.tls=https://10.77.0.1:8443 kit.ca=${'ca'.repeat(32)} ` +
    'kit.mac=02-4b-69-74-00-01 systemd.hostname=n1 ' +
    'console=tty0 console=ttyS0 quiet panic=5'
  for (const [wanted, root] of [
    ['install', ''],
    ['live', ' kit.root-sha256=aa kit.root-size=5'],
  ] as const) {
    const profile = profileWith({ ...settings, boot: wanted })
    const plan = decideBootPlan({ profile, machine: fresh, image, bundle })
    if (plan.kind === 'hold' || plan.kind === 'local-disk') return t.fail(plan.reason)
    t.is(
      kernelArguments(plan, boot),
      `kit.plan=${wanted} kit.boot=b1 kit.image=0.1.0${root} kit.bundle=bb kit.time=1700000000 ${own}`,
    )
    t.is(`panic=10 ${diskArguments(profile, SERVER)}`, own)
  }
})

const runs: Machine = {
  ...installed,
  ...{ imageVersion: '0.1.0', bundleDigest: 'bb', checks: 'waiting' },
}

const targets: readonly [string, Partial<TargetFacts>, object | undefined][] = [
  ['nothing without a role', { profile: profileWith({}) }, undefined],
  ['nothing of a broken profile', { profile: { ...profileWith({ role: 'w' }), broken: 'x' } }, undefined],
  ['nothing without a bundle', { bundle: noBundle }, undefined],
  ['nothing without an image for one that has not run', { image: noImage, machine: fresh }, undefined],
  ['what it runs without an image', { image: noImage }, { imageVersion: '0.1.0', isGood: true }],
  ['the image and bundle', {}, { imageVersion: '0.1.0', bundleDigest: 'bb', rateKiBps: 0, powerwash: false }],
  [
    'what the rollout lets it do',
    { permit: { mayStage: true, mayReboot: false } },
    { mayStage: true, mayReboot: false },
  ],
  ['its rate', { profile: profileWith({ role: 'w', 'update-rate': '512K' }) }, { rateKiBps: 500 }],
  [
    'never no limit for a small rate',
    { profile: profileWith({ role: 'w', 'update-rate': '3' }) },
    { rateKiBps: 1 },
  ],
  ['good while checks wait', {}, { isGood: true }],
  ['not good after failed checks', { machine: { ...runs, checks: 'failed' } }, { isGood: false }],
  ['not good for another boot', { bootId: 'b9' }, { isGood: false }],
  ['not good without a boot', { bootId: undefined }, { isGood: false }],
  ['not good before it runs', { machine: { ...runs, state: 'starting' } }, { isGood: false }],
  ['not good with another bundle', { machine: { ...runs, bundleDigest: 'cc' } }, { isGood: false }],
  [
    'good on a sound image that is not wanted now',
    { machine: { ...runs, imageVersion: '7' } },
    { isGood: true },
  ],
  [
    'not good on another one that failed',
    { machine: { ...runs, imageVersion: '7' }, isSound: () => false },
    { isGood: false },
  ],
  ['a powerwash', { isPowerwash: true }, { powerwash: true }],
  ['secrets to keep', { secretsDigest: 's1' }, { secretsDigest: 's1', secretsKept: 'persist' }],
  [
    'secrets for its memory only',
    { secretsDigest: 's1', profile: profileWith({ role: 'w', 'secrets-kept': 'memory' }) },
    { secretsKept: 'memory' },
  ],
  [
    'no powerwash before it runs',
    { isPowerwash: true, machine: { ...runs, state: 'failed' } },
    { powerwash: false },
  ],
  [
    'no powerwash of a live machine',
    { isPowerwash: true, machine: { ...runs, isInstalled: false } },
    { powerwash: false },
  ],
]

for (const [title, changes, expected] of targets) {
  test(`decideTarget() is ${title}`, (t) => {
    const target = decideTarget({
      ...{
        profile: profileWith({ role: 'w' }),
        machine: runs,
        image,
        bundle,
        bootId: 'b0',
        secretsDigest: undefined,
        server: SERVER,
      },
      permit: { mayStage: false, mayReboot: false },
      isPowerwash: false,
      isSound: () => true,
      ...changes,
    })
    if (expected === undefined) t.is(target, undefined)
    else t.like(target, expected)
  })
}
