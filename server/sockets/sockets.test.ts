// Real sockets on real interfaces, in a network namespace of this file's own.
// One test after another: they share ports, and while one starts a program its child holds the descriptors of all others.

import type { Socket } from 'node:dgram'
import { once } from 'node:events'

import test from 'ava'

import { KitError } from '#lib/errors.ts'
import { type Ipv4, parseIpv4 } from '#lib/ipv4.ts'
import type { UdpOptions } from '#lib/udp.ts'
import { addNeighbour, enterOwnNetwork, ip, type Neighbour } from '#testing/own-network.ts'

import { findInterface } from './network-interface.ts'
import { openUdp } from './udp.ts'
import { udpError } from './udp-error.ts'

let here: Neighbour
let elsewhere: Neighbour

test.before(async () => {
  await enterOwnNetwork()
  here = await addNeighbour({ name: 'lan0', address: '10.9.0.1/24' }, '10.9.0.2/24')
  elsewhere = await addNeighbour({ name: 'lan1', address: '10.8.0.1/24' }, '10.8.0.2/24')
})

test.after.always(() => {
  here?.stop()
  elsewhere?.stop()
})

const say = (who: Neighbour, what: string, to: string, port: number) =>
  who.run('bash', '-c', `printf %s ${what} > /dev/udp/${to}/${port}`)

async function close(socket: Socket): Promise<void> {
  const closed = once(socket, 'close')
  socket.close()
  await closed
}

test.serial('openUdp() hears only its own interface when it is tied to one', async (t) => {
  const socket = await openUdp({ port: 67, networkInterface: 'lan0' })
  const heard = once(socket, 'message')
  await say(elsewhere, 'stranger', '10.8.0.1', 67)
  await say(here, 'friend', '10.9.0.1', 67)
  const [message, from] = await heard
  t.is(String(message), 'friend')
  t.is(from.address, '10.9.0.2')
  await close(socket)
})

test.serial(
  'openUdp() sends to 255.255.255.255 through its interface when there is no default route',
  async (t) => {
    t.is(await ip('route show default'), '')
    const listener = here.start(
      process.execPath,
      '-e',
      `const socket = require('node:dgram').createSocket('udp4')
     socket.on('message', (bytes, from) => { console.log(bytes + ' from ' + from.address); socket.close() })
     socket.bind(68, () => console.log('ready'))`,
    )
    await once(listener.stdout ?? listener, 'data')
    const socket = await openUdp({ port: 67, networkInterface: 'lan0', broadcast: true })
    const heard = once(listener.stdout ?? listener, 'data')
    socket.send('offer', 68, '255.255.255.255')
    const [line] = await heard
    t.is(String(line), 'offer from 10.9.0.1\n')
    await close(socket)
  },
)

test.serial('openUdp() gives the descriptor back when the socket is closed', async (t) => {
  const options: UdpOptions = { port: 4013, networkInterface: 'lan0' }
  // The kernel frees the port with the descriptor, and SO_REUSEADDR is off: a leak would be a conflict.
  for (let round = 0; round < 20; round++) await close(await openUdp(options))
  t.pass()
})

test.serial('openUdp() is listening when it resolves', async (t) => {
  for (const options of [{ port: 0 }, { port: 0, networkInterface: 'lan0' }]) {
    const socket = await openUdp(options)
    t.true(socket.address().port > 0)
    await close(socket)
  }
})

test.serial('openUdp() asks for a receive buffer beyond rmem_max when it may', async (t) => {
  const socket = await openUdp({ port: 0, receiveBufferBytes: 4 << 20 })
  t.true(socket.getRecvBufferSize() >= 4 << 20)
  await close(socket)
})

const refusals: readonly (readonly [what: string, options: UdpOptions, expected: Partial<KitError>])[] = [
  [
    'another socket has the port',
    { port: 4011, address: '10.9.0.1' as Ipv4 },
    {
      code: 'conflict',
      message: 'Cannot listen on UDP port 4011: it is in use',
      fix: 'ss -ulpn sport = :4011',
    },
  ],
  [
    'another socket has the port on the same interface',
    { port: 4011, networkInterface: 'lan0' },
    {
      code: 'conflict',
      message: 'Cannot listen on UDP port 4011: it is in use',
      fix: 'ss -ulpn sport = :4011',
    },
  ],
  [
    'the interface does not exist',
    { port: 67, networkInterface: 'nope0' },
    { code: 'not-found', message: 'Cannot listen on UDP port 67: there is no network interface nope0' },
  ],
  [
    'no interface has the address',
    { port: 67, address: '192.0.2.1' as Ipv4 },
    {
      code: 'not-found',
      message: 'Cannot listen on UDP port 67: no network interface has the address 192.0.2.1',
    },
  ],
]

test.serial('openUdp() says what is in the way when it cannot open a socket', async (t) => {
  const taken = await openUdp({ port: 4011, networkInterface: 'lan0' })
  for (const [what, options, expected] of refusals) {
    const error = await t.throwsAsync(openUdp(options), { instanceOf: KitError }, what)
    t.like(error, expected, what)
  }
  await close(taken)
})

test.serial('udpError() names sudo when the process may not open the port', (t) => {
  const denied = Object.assign(new Error('bind EACCES'), { code: 'EACCES' })
  t.like(udpError(denied, { port: 67 }), {
    code: 'forbidden',
    message: 'Cannot listen on UDP port 67: only root may',
    fix: 'sudo',
  })
})

test.serial('openUdp() opens the same port on two interfaces when each is tied to its own', async (t) => {
  const one = await openUdp({ port: 4012, networkInterface: 'lan0' })
  const other = await openUdp({ port: 4012, networkInterface: 'lan1' })
  await Promise.all([close(one), close(other)])
  t.pass()
})

test.serial('findInterface() reads address, subnet and MAC when the interface is up', async (t) => {
  const found = await findInterface('lan0')
  const [link] = JSON.parse(await ip('-json link show dev lan0'))
  t.deepEqual(found, {
    name: 'lan0',
    ip: parseIpv4('10.9.0.1'),
    subnet: { network: parseIpv4('10.9.0.0'), prefixBits: 24 },
    mac: link.address,
  })
})

test.serial('findInterface() finds nothing when there is no such interface', async (t) => {
  t.is(await findInterface('nope0'), undefined)
})
