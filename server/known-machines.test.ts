// Which machines and addresses have head-room when strangers flood the server.

import test from 'ava'

import { parseIpv4 } from '#lib/ipv4.ts'
import { type Mac, parseMac } from '#lib/mac.ts'
import type { Machine } from '#machine/machine.ts'
import { TurnedClock } from '#testing/turned-clock.ts'

import { KnownMachines } from './known-machines.ts'

const mac = (last: number) => parseMac(`02:00:00:00:00:0${last}`)
const [FOLDER, PROVED, OLD, SEEN] = [mac(1), mac(2), mac(3), mac(4)]
const IP = parseIpv4('10.0.0.9')

function makeKnown() {
  const clock = new TurnedClock()
  const machines = new Map<Mac, Partial<Machine>>([
    [OLD, { lastCheckInMs: 1 }],
    [SEEN, { address: IP }],
  ])
  const known = new KnownMachines({
    profiles: { machines: () => [FOLDER] },
    roster: { known: (asked) => machines.get(asked) as Machine | undefined },
    hasIdentity: (asked) => asked === PROVED,
    clock,
  })
  known.refresh()
  return { known, clock }
}

test('KnownMachines.has() knows those with a folder, an identity or a check-in, and none that was only seen', (t) => {
  const { known } = makeKnown()
  t.deepEqual(
    [FOLDER, PROVED, OLD, SEEN].map((each) => known.has(each)),
    [true, true, true, false],
  )
})

test('KnownMachines.hasAddress() takes leases of known machines, and where one proved itself within a day', (t) => {
  const { known, clock } = makeKnown()
  t.false(known.hasAddress(IP), 'anybody may have said so')
  let holder: Mac | undefined = SEEN
  known.useLeases(() => holder)
  t.false(known.hasAddress(IP))
  holder = FOLDER
  t.true(known.hasAddress(IP))
  holder = undefined
  known.noteAddress(IP)
  t.true(known.hasAddress(IP))
  clock.turn(24 * 3_600_000)
  t.false(known.hasAddress(IP))
})

test('KnownMachines.noteAddress() forgets the oldest of very many', (t) => {
  const { known } = makeKnown()
  known.noteAddress(IP)
  for (let n = 0; n < 16_384; n++) known.noteAddress(parseIpv4(`10.1.${n >> 8}.${n & 255}`))
  t.false(known.hasAddress(IP))
  t.true(known.hasAddress(parseIpv4('10.1.0.0')))
})
