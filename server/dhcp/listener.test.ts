// The listener over a socket that only pretends: what it counts, and what it does when the store or the network fails.

import type { Socket } from 'node:dgram'
import { EventEmitter } from 'node:events'

import test from 'ava'

import { systemClock } from '#lib/clock.ts'
import { parseIpv4 } from '#lib/ipv4.ts'
import { silentLog } from '#lib/log.ts'
import { discover } from '#testing/made-dhcp.ts'
import { encodeDhcp } from '#wire/dhcp4-encode.ts'

import { Listener } from './listener.ts'
import type { Responder } from './responder.ts'

/** A socket whose sends fail with `sendError`, and the listener on it. */
function listen(respond: Responder) {
  const warnings: string[] = []
  const clock = { ms: 0, ...systemClock, monotonicMs: () => clock.ms }
  const log = { ...silentLog, warn: (_: unknown, message: string) => void warnings.push(message) }
  const socket = Object.assign(new EventEmitter(), {
    sent: 0,
    sendError: null as Error | null,
    getSendQueueCount: () => 0,
    send(_bytes: Uint8Array, _port: number, _ip: string, done: (error: Error | null) => void) {
      socket.sent++
      done(socket.sendError)
    },
  })
  const real = socket as unknown as Socket
  const listener = new Listener(respond, { log, clock, isKnown: () => false })
  listener.listen(real, { port: 67, arrived: 'broadcast' }, { unicast: real, broadcast: real })
  const receive = (bytes: Uint8Array) =>
    socket.emit('message', Buffer.from(bytes), { address: '0.0.0.0', port: 68 })
  return { listener, socket, warnings, clock, receive }
}

const REQUEST = encodeDhcp(discover({}))
const echo: Responder = async ({ packet }) => ({
  packet,
  to: { ip: parseIpv4('255.255.255.255'), port: 68 },
})

test('Listener answers nobody while the store fails, and does not fill the log with it', async (t) => {
  const { listener, socket, warnings, clock, receive } = listen(async () => {
    throw new Error('database or disk is full')
  })
  for (let sent = 0; sent < 200; sent++) {
    receive(REQUEST)
    await listener.idle()
  }
  t.like(listener.counts, { received: 200, failed: 200, answered: 0 })
  t.is(socket.sent, 0)
  t.is(warnings.length, 60)
  clock.ms += 60_000
  receive(REQUEST)
  await listener.idle()
  t.is(warnings.length, 61)
})

test('Listener counts an answer that cannot be sent, and goes on', async (t) => {
  const { listener, socket, warnings, receive } = listen(echo)
  socket.sendError = new Error('ENETUNREACH')
  receive(REQUEST)
  await listener.idle()
  socket.sendError = null
  receive(REQUEST)
  await listener.idle()
  t.like(listener.counts, { received: 2, unsent: 1, answered: 1, failed: 0 })
  t.deepEqual(warnings, [])
})

test('Listener counts what it cannot read, and drops what one machine sends too much of', async (t) => {
  const { listener, receive } = listen(echo)
  receive(Uint8Array.of(1, 2, 3))
  for (let sent = 0; sent < 20; sent++) receive(REQUEST)
  await listener.idle()
  t.like(listener.counts, { received: 21, broken: 1, answered: 16, dropped: 4 })
})
