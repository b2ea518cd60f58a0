// Asks, as a client would, whether somebody already gives addresses on this network.

import { randomBytes, randomInt } from 'node:crypto'
import type { Socket } from 'node:dgram'

import type { Clock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import { ANY_IPV4, BROADCAST_IPV4, type Ipv4 } from '#lib/ipv4.ts'
import type { Log } from '#lib/log.ts'
import type { OpenUdp } from '#lib/udp.ts'
import { type DhcpPacket, decodeDhcp } from '#wire/dhcp4.ts'
import { BOOTP_OP, DHCP_PORT, HARDWARE_ETHERNET, MESSAGE_TYPE, OPTION } from '#wire/dhcp4-codes.ts'
import { encodeDhcp } from '#wire/dhcp4-encode.ts'
import { findIp, findMessageType, uint8Bytes } from '#wire/dhcp4-values.ts'

export interface ProbeOptions {
  readonly networkInterface: string
  readonly serverIp: Ipv4
  readonly openUdp: OpenUdp
  readonly clock: Clock
  readonly log: Log
  /** Bound to `serverIp`:67: asks where port 68 is in use by this host's own DHCP client. Not closed here. */
  readonly relaySocket: Socket
  readonly probeMs?: number
}

const TRIES = 2
/** Twice this is more than the 3 s for which dnsmasq pings an address before it offers it (ISC dhcpd: 1 s). */
const DEFAULT_PROBE_MS = 2000

/** Throws KitError: `conflict`, with the other server's address; `unavailable` for an interface that is down. */
export async function refuseBesideOtherServer(options: ProbeOptions): Promise<void> {
  const other = await findOtherServer(options)
  if (other === undefined) return
  throw new KitError(
    'conflict',
    `Cannot start DHCP in server mode: ${other} already answers DHCP on ${options.networkInterface}`,
    { fix: 'set dhcp/mode to proxy, or turn the other server off' },
  )
}

async function findOtherServer(options: ProbeOptions): Promise<Ipv4 | undefined> {
  const { openUdp, networkInterface, log } = options
  let socket: Socket
  try {
    // Bound to the broadcast address, for answers are asked for by broadcast; a wildcard would clash with more programs.
    const address = BROADCAST_IPV4
    socket = await openUdp({ port: DHCP_PORT.client, address, networkInterface, broadcast: true })
  } catch (error) {
    if (!(error instanceof KitError) || error.code !== 'conflict') throw error
    log.info({ networkInterface }, 'port 68 is in use: asking for other DHCP servers as a relay agent does')
    return await ask(options.relaySocket, options.serverIp, options)
  }
  socket.on('error', (error) => log.warn({ err: error }, 'DHCP: the socket of the probe reported an error'))
  try {
    return await ask(socket, ANY_IPV4, options)
  } finally {
    await new Promise<void>((resolve) => socket.close(resolve))
  }
}

/** The first offer of an address by anybody but us, or undefined after the wait. Asks twice: the first may be lost. */
function ask(socket: Socket, relayIp: Ipv4, options: ProbeOptions): Promise<Ipv4 | undefined> {
  const { clock, probeMs = DEFAULT_PROBE_MS, serverIp } = options
  const question = discover(relayIp)
  const bytes = encodeDhcp(question)
  return new Promise((resolve, reject) => {
    let cancel = () => {}
    const finish = (settle: () => void) => {
      cancel()
      socket.off('message', hear)
      settle()
    }
    const hear = (reply: Buffer, from: { address: string }) => {
      const server = findOffering(reply, question.xid, from.address as Ipv4) // dgram's own spelling
      if (server !== undefined && server !== serverIp) finish(() => resolve(server))
    }
    const send = (triesLeft: number) => {
      if (triesLeft === 0) return finish(() => resolve(undefined))
      socket.send(bytes, DHCP_PORT.server, BROADCAST_IPV4, (error) => {
        if (error !== null) finish(() => reject(cannotAsk(options.networkInterface, error)))
      })
      cancel = clock.after(probeMs, () => send(triesLeft - 1))
    }
    socket.on('message', hear)
    send(TRIES)
  })
}

function cannotAsk(networkInterface: string, cause: Error): KitError {
  const message = `Cannot ask for other DHCP servers on ${networkInterface}: nothing can be sent there`
  return new KitError('unavailable', message, { fix: `ip link set dev ${networkInterface} up`, cause })
}

/** A proxy DHCP server offers no address (PXE 2.1 §2.2.3): it gets along with us. */
function findOffering(bytes: Uint8Array, xid: number, from: Ipv4): Ipv4 | undefined {
  try {
    const packet = decodeDhcp(bytes)
    if (packet.op !== BOOTP_OP.reply || packet.xid !== xid || packet.yourIp === ANY_IPV4) return undefined
    if (findMessageType(packet.options) !== MESSAGE_TYPE.offer) return undefined
    return findIp(packet.options, OPTION.serverId) ?? from
  } catch {
    return undefined // noise on the port is no server
  }
}

/** From a made-up machine, with a locally administered MAC, that takes only broadcasts. */
function discover(relayIp: Ipv4): DhcpPacket {
  const hardwareAddress = randomBytes(6)
  hardwareAddress[0] = 0x02
  return {
    op: BOOTP_OP.request,
    hardwareType: HARDWARE_ETHERNET,
    hardwareAddress: new Uint8Array(hardwareAddress),
    hops: relayIp === ANY_IPV4 ? 0 : 1,
    xid: randomInt(1, 2 ** 32),
    secs: 0,
    broadcast: true,
    ...{ clientIp: ANY_IPV4, yourIp: ANY_IPV4, nextServerIp: ANY_IPV4, relayIp },
    serverName: '',
    bootFile: '',
    options: new Map([[OPTION.messageType, uint8Bytes(MESSAGE_TYPE.discover)]]),
  }
}
