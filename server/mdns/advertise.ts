// Makes the server known on its LAN by multicast DNS (RFC 6762, RFC 6763): `_kateskit._tcp`, and a goodbye at the end.

import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'

import { Bonjour, type ServiceConfig } from 'bonjour-service'

import { KitError, systemErrorCode } from '#lib/errors.ts'
import type { Ipv4 } from '#lib/ipv4.ts'
import type { Log } from '#lib/log.ts'
import type { Service } from '#lib/service.ts'

/** RFC 6762 §3. */
const MDNS_GROUP = '224.0.0.251'
const MDNS_PORT = 5353

/** All hosts of a LAN talk to the group, and each has a few questions when it starts. */
const MESSAGES_PER_SECOND = 200

/** What one label of a name holds (RFC 6763 §4.1.1). */
const LABEL_BYTES = 63

export interface MdnsOptions {
  /** What people see in a browser of services: `KatesKit on attic`. */
  readonly name: string
  /** The address of the one interface that is announced to and about. */
  readonly ip: Ipv4
  /** Where the HTTP API listens. */
  readonly port: number
  readonly tlsPort: number
  /** sha256 of the CA's certificate, DER, hex. */
  readonly fingerprint: string
  readonly version: string
  /** Tells this server from every other, such as a UUID; its first characters become part of the names. */
  readonly id: string
  readonly log: Log
  /** For tests of what it does with each; default 200. */
  readonly messagesPerSecond?: number
}

/** `start` resolves when questions are heard; the name is probed for first (RFC 6762 §8.1), so answers begin a second later. */
export function createMdnsService(options: MdnsOptions): Service {
  let running: Bonjour | undefined
  return {
    name: 'mdns',
    async start() {
      const socket = await openGroupSocket()
      limitMessages(socket, options.messagesPerSecond ?? MESSAGES_PER_SECOND)
      running = announce(socket, options)
    },
    async stop() {
      const bonjour = running
      if (bonjour === undefined) return
      running = undefined
      // Says goodbye with a lifetime of 0 (RFC 6762 §10.1), and calls back when the packet has left.
      await new Promise<void>((resolve) => bonjour.unpublishAll(() => resolve()))
      await new Promise<void>((resolve) => bonjour.destroy(() => resolve()))
    },
  }
}

/**
 * RFC 6762 §6 wants no record sent more than once a second; the package answers every question. Questions beyond
 * a few are as good as lost: who asks in earnest asks again (§5.2).
 */
export function limitMessages(socket: Socket, perSecond: number, nowMs = () => performance.now()): void {
  const emit = socket.emit.bind(socket) as (...words: unknown[]) => boolean
  let second = -1
  let heard = 0
  socket.emit = (event: string, ...words: unknown[]) => {
    if (event !== 'message') return emit(event, ...words)
    const now = Math.floor(nowMs() / 1000)
    heard = now === second ? heard + 1 : 1
    second = now
    return heard <= perSecond && emit(event, ...words)
  }
}

function announce(socket: Socket, { ip, log, ...options }: MdnsOptions): Bonjour {
  socket.on('error', (error) => log.warn({ err: error }, 'mDNS: the socket reported an error'))
  const bonjour = new Bonjour(
    // Handed through to multicast-dns, whose options the types leave out.
    { socket, bind: false, interface: ip } as unknown as ServiceConfig,
    (error: unknown) => log.warn({ err: error }, 'mDNS: an answer could not be sent'),
  )
  // multicast-dns joins the group when it hears this, which was said before it existed.
  socket.emit('listening')
  // With the id no two servers share an instance name or a host name, and the host's own avahi keeps its own.
  const { name, port, tlsPort, fingerprint, version, id } = options
  const shortId = shortOf(id)
  const service = bonjour.publish({
    name: `${cutToBytes(name, LABEL_BYTES - ` (${shortId})`.length)} (${shortId})`,
    host: mdnsHost(id),
    type: 'kateskit',
    protocol: 'tcp',
    port,
    txt: { api: '/api/v1', version, id, https: `${tlsPort}`, ca: fingerprint },
    disableIPv6: true,
  })
  // The package lists the addresses of all interfaces; those of other networks are nobody's business here.
  const allRecords = service.records.bind(service)
  service.records = () => allRecords().filter(({ type, data }) => type !== 'A' || data === ip)
  return bonjour
}

/** What the server calls itself on the LAN. */
export function mdnsHost(id: string): string {
  return `kateskit-${shortOf(id)}.local`
}

function shortOf(id: string): string {
  return id.slice(0, 8)
}

/** Whole characters only. */
function cutToBytes(text: string, maxBytes: number): string {
  const characters = [...text]
  while (Buffer.byteLength(characters.join('')) > maxBytes) characters.pop()
  return characters.join('')
}

/** Bound to the group's address, it hears the group and nothing else. */
async function openGroupSocket(): Promise<Socket> {
  // Shared with avahi-daemon and the like: each gets its copy of what is sent to the group (RFC 6762 §15.1).
  const socket = createSocket({ type: 'udp4', reuseAddr: true })
  try {
    const listening = once(socket, 'listening')
    socket.bind(MDNS_PORT, MDNS_GROUP)
    await listening
    return socket
  } catch (error) {
    socket.close()
    if (systemErrorCode(error) !== 'EADDRINUSE') throw error
    throw new KitError('conflict', `Cannot listen on UDP port ${MDNS_PORT}: it is in use`, {
      fix: `ss -ulpn sport = :${MDNS_PORT}`,
      cause: error,
    })
  }
}
