// Floods a server with DHCP of made-up machines, or with TFTP requests that nobody goes on with, until it is killed.

import { randomBytes, randomInt } from 'node:crypto'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { setImmediate as turn } from 'node:timers/promises'

import { ANY_IPV4, type Ipv4, ipv4ToBytes } from '#lib/ipv4.ts'
import { BOOTP_OP, DHCP_PORT, HARDWARE_ETHERNET, MESSAGE_TYPE, OPTION } from '#wire/dhcp4-codes.ts'
import { encodeDhcp } from '#wire/dhcp4-encode.ts'
import { encodeTftp } from '#wire/tftp.ts'

/** The one argument, as JSON. */
export interface UdpFloodArguments {
  readonly kind: 'dhcp' | 'tftp'
  readonly serverIp: Ipv4
  /** What it sends from; TFTP takes them in turn. */
  readonly from: readonly string[]
  /** `dhcp`: what the made-up machines ask for, in turn. */
  readonly addresses: readonly Ipv4[]
  /** It says `flooded` after so many packets, and goes on. */
  readonly packets: number
}

const asked: UdpFloodArguments = JSON.parse(process.argv[2] ?? '')
const BATCH = 64

function madeUpDhcp(count: number): Uint8Array {
  const hardwareAddress = new Uint8Array(randomBytes(6))
  hardwareAddress[0] = 0x02
  const isDiscover = count % 16 === 0
  const type = isDiscover ? MESSAGE_TYPE.discover : MESSAGE_TYPE.request
  const wanted = asked.addresses[count % asked.addresses.length] ?? ANY_IPV4
  return encodeDhcp({
    op: BOOTP_OP.request,
    hardwareType: HARDWARE_ETHERNET,
    hardwareAddress,
    hops: 0,
    xid: randomInt(1, 2 ** 32),
    secs: 0,
    broadcast: true,
    ...{ clientIp: ANY_IPV4, yourIp: ANY_IPV4, nextServerIp: ANY_IPV4, relayIp: ANY_IPV4 },
    serverName: '',
    bootFile: '',
    options: new Map([
      [OPTION.messageType, Uint8Array.of(type)],
      ...(isDiscover ? [] : ([[OPTION.requestedIp, ipv4ToBytes(wanted)]] as const)),
    ]),
  })
}

async function openSocket(address: string) {
  const socket = createSocket('udp4')
  socket.on('error', () => {})
  socket.bind(0, address)
  await once(socket, 'listening')
  return socket
}

async function send(bytes: Uint8Array, address: string, port: number): Promise<void> {
  const socket = sockets.get(address) ?? (await openSocket(address))
  sockets.set(address, socket)
  await new Promise<void>((resolve) => socket.send(bytes, port, asked.serverIp, () => resolve()))
}

const sockets = new Map<string, Awaited<ReturnType<typeof openSocket>>>()
const request = encodeTftp({
  kind: 'read',
  name: 'snponly.efi',
  mode: 'octet',
  options: new Map([['blksize', '512']]),
})

for (let count = 0; ; count++) {
  const address = asked.from[count % asked.from.length] ?? ''
  if (asked.kind === 'dhcp') await send(madeUpDhcp(count), address, DHCP_PORT.server)
  else {
    // Each transfer has a port of its own: another socket.
    const socket = await openSocket(address)
    socket.send(request, 69, asked.serverIp, () => {})
    if (count > 4_000) socket.close()
  }
  if (count === asked.packets) process.stdout.write('flooded\n')
  if (count % BATCH === 0) await turn()
}
