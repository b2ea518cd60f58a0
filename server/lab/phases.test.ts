import test from 'ava'

import { parseIpv4 } from '#lib/ipv4.ts'
import { parseMac } from '#lib/mac.ts'
import type { Event, EventData, EventKind } from '#machine/event.ts'

import { advance, type BootProgress, phaseSeconds, powerOn } from './phases.ts'

const MAC = parseMac('52:54:00:77:01:01')
const START_MS = 1_000_000

let lastId = 0
function event(afterSeconds: number, kind: EventKind, data: EventData = {}): Event {
  lastId += 1
  return { id: lastId, atMs: START_MS + afterSeconds * 1000, kind, mac: MAC, message: `${kind} said`, data }
}

const live = (events: readonly Event[], from: BootProgress = powerOn(START_MS)) =>
  events.reduce(advance, from)

const WHOLE_BOOT = [
  event(9, 'machine-discovered'),
  event(9.5, 'dhcp-offered'),
  event(12, 'loader-sent'),
  event(15, 'boot-script-sent', { plan: 'live' }),
  event(20, 'step-started', { step: '25-identity' }),
  event(24, 'identity-issued', { tier: 'paired' }),
  event(25, 'step-done', { step: '25-identity' }),
  event(27, 'checked-in', { from: 'discovered', to: 'starting' }),
  event(28, 'step-started', { step: '40-image' }),
  event(36, 'step-done', { step: '40-image' }),
  event(40, 'step-started', { step: '70-handover' }),
  event(110, 'checked-in', { from: 'starting', to: 'running', address: '10.77.0.100' }),
]

test('advance() names the phase after each event of a live boot', (t) => {
  const phases: string[] = []
  let progress = powerOn(START_MS)
  for (const each of WHOLE_BOOT) {
    progress = advance(progress, each)
    phases.push(progress.phase)
  }
  const untilKernel = ['loader', 'loader', 'loader', 'kernel']
  t.deepEqual(phases, [
    ...[...untilKernel, 'pairing', 'disk', 'disk', 'disk', 'image', 'image', 'system', 'running'],
  ])
})

for (const [title, event_] of [
  ['the next step begins', event(30, 'step-started', { step: '30-check-in' })],
  ['the step of its identity is done', event(30, 'step-done', { step: '25-identity' })],
  ['it has a new certificate', event(30, 'certificate-renewed')],
] as const) {
  test(`advance() ends the pairing when ${title}`, (t) => {
    const waiting = live(WHOLE_BOOT.slice(0, 5))
    t.is(waiting.phase, 'pairing')
    t.is(advance(waiting, event_).phase, 'disk')
  })
}

test('advance() keeps the phase of a running machine that renews its certificate', (t) => {
  t.is(live([event(9000, 'certificate-renewed')], live(WHOLE_BOOT)).phase, 'running')
})

test('phaseSeconds() adds up to the total when a machine has arrived', (t) => {
  const progress = live(WHOLE_BOOT)
  t.deepEqual(phaseSeconds(progress), {
    firmware: 9,
    loader: 6,
    kernel: 5,
    pairing: 4,
    disk: 4,
    image: 12,
    system: 70,
    total: 110,
  })
  t.like(progress, { address: parseIpv4('10.77.0.100') })
})

test('advance() gives a phase nobody reported no time when a later one ends', (t) => {
  const progress = live([event(30, 'checked-in', { to: 'running' })])
  t.deepEqual(phaseSeconds(progress), {
    ...{ firmware: 30, loader: 0, kernel: 0, pairing: 0, disk: 0, image: 0, system: 0 },
    total: 30,
  })
})

test('advance() keeps step, reason and log when a step fails, and drops them when the initrd tries again', (t) => {
  const failed = live([
    ...WHOLE_BOOT.slice(0, 8),
    event(30, 'step-failed', { step: '40-image', log: 'sha256 differs' }),
    event(31, 'checked-in', { to: 'failed' }),
  ])
  t.like(failed, {
    phase: 'failed',
    step: '40-image',
    failureLog: 'sha256 differs',
    reason: 'step-failed said',
  })

  const again = advance(failed, event(91, 'step-started', { step: '10-network' }))
  t.is(again.phase, 'image')
  t.false('failureLog' in again)
})

test('advance() follows an installation through partitions and slot', (t) => {
  const phases: string[] = []
  let progress = powerOn(START_MS)
  for (const each of [
    event(15, 'boot-script-sent', { plan: 'install' }),
    event(27, 'checked-in', { from: 'discovered', to: 'starting' }),
    event(28, 'step-started', { step: '42-partitions' }),
    event(30, 'checked-in', { from: 'starting', to: 'installing' }),
    event(31, 'step-started', { step: '43-slot' }),
    event(60, 'step-started', { step: '61-disk-root' }),
    event(62, 'step-started', { step: '70-handover' }),
    event(110, 'checked-in', { from: 'installing', to: 'running' }),
  ]) {
    progress = advance(progress, each)
    phases.push(progress.phase)
  }
  t.deepEqual(phases, ['kernel', 'disk', 'disk', 'disk', 'image', 'image', 'system', 'running'])
  t.like(phaseSeconds(progress), { disk: 4, image: 31, system: 48 })
})

test('advance() sees an installed machine arrive that was sent on to its own disk', (t) => {
  const sent = live([event(200, 'boot-script-sent', { plan: 'local-disk' })], live(WHOLE_BOOT))
  t.is(sent.phase, 'elsewhere')
  const arrived = advance(sent, event(270, 'checked-in', { from: 'running', to: 'running' }))
  t.is(arrived.phase, 'running')
  t.is(phaseSeconds(arrived).total, 70)
  t.false('reason' in arrived)
})

test('advance() says elsewhere when the boot plan is not live', (t) => {
  const progress = live([event(9, 'dhcp-offered'), event(15, 'boot-script-sent', { plan: 'local-disk' })])
  t.like(progress, { phase: 'elsewhere', reason: 'boot-script-sent said' })
})

for (const first of ['dhcp-offered', 'boot-script-sent'] as const) {
  test(`advance() measures a new boot when ${first} comes from a machine that ran`, (t) => {
    const again = live([event(200, first, { plan: 'live' })], live(WHOLE_BOOT))
    t.is(again.poweredOnMs, START_MS + 200_000)
    t.not(again.phase, 'running')
  })
}

test('advance() stays in the same boot when the loader asks for DHCP again', (t) => {
  const progress = live([event(9, 'dhcp-offered'), event(14, 'dhcp-offered')])
  t.deepEqual(progress.endedMs, { firmware: START_MS + 9000 })
})
