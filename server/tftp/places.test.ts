// Who gets a transfer when more are asked for than there may be.

import test from 'ava'

import { ipv4FromNumber, ipv4ToNumber, parseIpv4 } from '#lib/ipv4.ts'

import { Places } from './places.ts'

const address = (n: number) => ipv4FromNumber(ipv4ToNumber(parseIpv4('10.0.0.0')) + n)
const KNOWN = address(200)

function makePlaces() {
  const places = new Places<{ isHalfOpen: boolean }>({
    maxTransfers: 8,
    keptForKnown: 2,
    maxTransfersPerClient: 3,
  })
  let nowMs = 0
  let port = 0
  /** Begins a transfer where there is room for one; resolves the way the service does. */
  const begin = (ip: ReturnType<typeof address>, isHalfOpen = true) => {
    const room = places.roomFor(ip, { isKnown: ip === KNOWN, nowMs })
    if (room === undefined) return 'refused'
    if (room !== 'room') places.leave(room.key)
    const key = `${ip}:${port++}`
    places.take(key, { ip, transfer: { isHalfOpen }, nowMs })
    return room === 'room' ? 'room' : `instead of ${room.key}`
  }
  return { places, begin, pass: (ms: number) => (nowMs += ms) }
}

test('Places.roomFor() bounds the transfers of one address, and replaces those it was never heard of again', (t) => {
  const { begin, pass } = makePlaces()
  t.deepEqual(
    [false, true, true].map((isHalfOpen) => begin(address(1), isHalfOpen)),
    ['room', 'room', 'room'],
  )
  t.is(begin(address(1)), 'refused', 'a second must have passed')
  pass(1000)
  t.is(begin(address(1), false), 'instead of 10.0.0.1:1')
  t.is(begin(address(1), false), 'instead of 10.0.0.1:2')
  pass(1000)
  t.is(begin(address(1)), 'refused', 'all of them go on')
})

test('Places.roomFor() keeps places for known machines, whatever addresses are made up', (t) => {
  const { begin, pass } = makePlaces()
  const begun = Array.from({ length: 50 }, (_, n) => begin(address(n)))
  t.is(begun.filter((outcome) => outcome === 'room').length, 6)
  t.deepEqual([begin(KNOWN), begin(KNOWN), begin(KNOWN)], ['room', 'room', 'refused'])
  pass(1000)
  t.is(begin(address(99)), 'refused', 'nobody makes way for a stranger')
  t.is(begin(KNOWN), 'instead of 10.0.0.0:0')
})

test('Places.roomFor() gives the place of no transfer away that goes on', (t) => {
  const { begin, pass } = makePlaces()
  for (let n = 0; n < 6; n++) begin(address(n), false)
  t.deepEqual([begin(KNOWN, false), begin(KNOWN, false)], ['room', 'room'])
  pass(60_000)
  t.is(begin(KNOWN), 'refused')
})

test('Places.leave() frees the place, and Places.all() tells who is left', (t) => {
  const { places, begin } = makePlaces()
  for (let n = 0; n < 6; n++) begin(address(n))
  t.is(begin(address(9)), 'refused')
  places.leave('10.0.0.3:3')
  places.leave('10.0.0.3:3')
  t.is(places.all().length, 5)
  t.is(places.get('10.0.0.3:3'), undefined)
  t.is(begin(address(9)), 'room')
})
