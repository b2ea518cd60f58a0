// REQUEST, the message with four meanings: which it is, and what it is answered.

import test from 'ava'

import { parseIpv4 } from '#lib/ipv4.ts'
import { brief, ip, mac, makeLeaseNetwork, OTHER_SERVER, ROUTER, SERVER } from '#testing/lease-network.ts'

import { requestState } from './lease-request.ts'
import type { LeaseAsk } from './lease-types.ts'

for (const { title, ask, state } of [
  { title: 'SELECTING', ask: { requestedIp: ip(10), serverId: SERVER }, state: 'selecting' },
  { title: 'INIT-REBOOT', ask: { requestedIp: ip(10) }, state: 'init-reboot' },
  { title: 'RENEWING', ask: { clientIp: ip(10), arrived: 'unicast' }, state: 'renewing' },
  { title: 'REBINDING', ask: { clientIp: ip(10), arrived: 'broadcast' }, state: 'rebinding' },
  {
    title: 'RENEWING with options 50 and 54',
    ask: { clientIp: ip(10), requestedIp: ip(10), serverId: SERVER, arrived: 'unicast' },
    state: 'renewing',
  },
  { title: 'no address at all', ask: { serverId: SERVER }, state: 'malformed' },
] as const) {
  test(`requestState() tells ${title}`, (t) => {
    const base = { type: 'request', clientKey: 'k', mac: mac(1), arrived: 'broadcast' } as const
    t.is(requestState({ ...base, ...ask }).kind, state)
  })
}

// Client 1 has the lease of .10, client 2 that of .11; 12 is free, 100 is reserved for client 9, 50 is outside the pool.
for (const { title, who = 1, ask, answer } of [
  { title: 'renews by unicast', ask: { clientIp: ip(10), arrived: 'unicast' }, answer: 'ack 10.77.0.10' },
  { title: 'rebinds by broadcast', ask: { clientIp: ip(10) }, answer: 'ack 10.77.0.10' },
  { title: 'reboots and asks for its address', ask: { requestedIp: ip(10) }, answer: 'ack 10.77.0.10' },
  {
    title: 'reboots and asks for the address of another',
    ask: { requestedIp: ip(11) },
    answer: 'nak address-taken',
  },
  {
    title: 'reboots on another network',
    ask: { requestedIp: parseIpv4('192.168.1.5') },
    answer: 'nak wrong-subnet',
  },
  {
    title: 'rebinds on another network',
    ask: { clientIp: parseIpv4('192.168.1.5') },
    answer: 'nak wrong-subnet',
  },
  {
    title: 'renews from beyond a router',
    ask: { clientIp: parseIpv4('192.168.1.5'), arrived: 'unicast' },
    answer: 'silent other-subnet',
  },
  {
    title: 'chose another server',
    ask: { requestedIp: ip(10), serverId: OTHER_SERVER },
    answer: 'silent other-server',
  },
  { title: 'names no address', ask: { serverId: SERVER }, answer: 'silent malformed' },
  {
    title: 'asks through a relay agent on another network',
    ask: { requestedIp: ip(10), relayIp: parseIpv4('10.78.0.1') },
    answer: 'silent other-subnet',
  },
  {
    title: 'asks through a relay agent on our network',
    ask: { requestedIp: ip(10), relayIp: ip(5) },
    answer: 'ack 10.77.0.10',
  },
  { title: 'reboots and asks for a free address', ask: { requestedIp: ip(12) }, answer: 'nak has-another' },
  { title: 'uses a free address', ask: { clientIp: ip(12) }, answer: 'ack 10.77.0.12' },
  {
    title: 'is unknown and its address is free',
    who: 3,
    ask: { requestedIp: ip(12) },
    answer: 'ack 10.77.0.12',
  },
  {
    title: 'is unknown and renews a free address',
    who: 3,
    ask: { clientIp: ip(12), arrived: 'unicast' },
    answer: 'ack 10.77.0.12',
  },
  {
    title: 'is unknown and its address is not in the pool',
    who: 3,
    ask: { requestedIp: ip(50) },
    answer: 'nak outside-pool',
  },
  {
    title: "asks for the server's own address",
    who: 3,
    ask: { requestedIp: SERVER },
    answer: 'nak address-taken',
  },
  {
    title: "asks for the router's address",
    who: 3,
    ask: { requestedIp: ROUTER },
    answer: 'nak address-taken',
  },
  {
    title: 'asks for the broadcast address',
    who: 3,
    ask: { requestedIp: ip(255) },
    answer: 'nak address-taken',
  },
  {
    title: 'asks for what is reserved for another',
    who: 3,
    ask: { requestedIp: ip(100) },
    answer: 'nak reserved-for-another',
  },
  {
    title: 'asks for its reservation outside the pool',
    who: 9,
    ask: { requestedIp: ip(100) },
    answer: 'ack 10.77.0.100',
  },
  {
    title: 'has a reservation and asks for another address',
    who: 9,
    ask: { requestedIp: ip(12) },
    answer: 'nak reservation-changed',
  },
] as const satisfies readonly { title: string; who?: number; ask: Partial<LeaseAsk>; answer: string }[]) {
  test(`settle() answers REQUEST with "${answer}" when the client ${title}`, async (t) => {
    const network = makeLeaseNetwork()
    t.is(await network.obtain(1), ip(10))
    t.is(await network.obtain(2), ip(11))
    network.reservations.set(mac(9), ip(100))
    t.is(brief(await network.settle(who, { type: 'request', ...ask })), answer)
  })
}

test('settle() takes a REQUEST that names nothing for the offer it was made', async (t) => {
  const network = makeLeaseNetwork()
  await network.settle(1, { type: 'discover' })
  t.is(brief(await network.settle(1, { type: 'request' })), 'ack 10.77.0.10')
  t.is(brief(await network.settle(2, { type: 'request' })), 'silent malformed')
})
