// The DHCP service: proxy or server mode on one network interface.

import type { Socket } from 'node:dgram'

import type { Clock } from '#lib/clock.ts'
import { BROADCAST_IPV4, type Ipv4 } from '#lib/ipv4.ts'
import type { Log } from '#lib/log.ts'
import type { Mac } from '#lib/mac.ts'
import type { Service } from '#lib/service.ts'
import type { OpenUdp } from '#lib/udp.ts'
import type { LeaseStore } from '#machine/lease-ports.ts'
import type { EventLog, Sightings } from '#machine/ports.ts'
import { DHCP_PORT } from '#wire/dhcp4-codes.ts'

import type { Ear } from './arrival.ts'
import { BootDesk } from './boot-desk.ts'
import { LeaseDesk } from './lease-desk.ts'
import { createLeaseResponder } from './lease-responder.ts'
import type { LeasePolicy } from './lease-types.ts'
import { Listener, type ListenerCounts } from './listener.ts'
import { Notices } from './notices.ts'
import { Pool } from './pool.ts'
import { refuseBesideOtherServer } from './probe.ts'
import { createProxyResponder } from './proxy-responder.ts'
import type { NetworkParameters } from './reply-options.ts'
import type { Responder } from './responder.ts'

export interface DhcpServiceOptions extends NetworkParameters, Omit<LeasePolicy, 'serverIp' | 'takenIps'> {
  readonly mode: 'proxy' | 'server'
  readonly networkInterface: string
  /** Our address on that interface. */
  readonly serverIp: Ipv4
  /** Option 12 of a lease: what the machine is called in its profile. */
  readonly hostnameFor?: (mac: Mac) => string | undefined
  /** `http://10.77.0.1:8080`, no slash at the end. */
  readonly httpBaseUrl: string
  readonly leases: LeaseStore
  readonly events: Pick<EventLog, 'append'>
  readonly sightings: Sightings
  readonly openUdp: OpenUdp
  readonly clock: Clock
  readonly log: Log
  /** How long each of the two questions for another server waits for answers. */
  readonly probeMs?: number
}

export interface DhcpService extends Service {
  /** Called for each boot script that was fetched: the machine's boot does not go in circles. */
  bootScriptFetched(mac: Mac): void
  /** Who has a lease of this address now; undefined in proxy mode. */
  leasedTo(ip: Ipv4): Mac | undefined
  /** What became of the packets; zeros before `start`. */
  counts(): ListenerCounts
}

const NO_COUNTS: ListenerCounts = { received: 0, answered: 0, broken: 0, dropped: 0, unsent: 0, failed: 0 }

/** A switched-on rack asks within milliseconds; the kernel keeps what does not fit into the queue at once. */
const RECEIVE_BUFFER_BYTES = 4 * 1024 * 1024

/**
 * `start` throws KitError `conflict` where another server gives addresses (server mode) or has the port, and what
 * `openUdp` and the store throw.
 */
export function createDhcpService(options: DhcpServiceOptions): DhcpService {
  const { mode, clock, log, serverIp, httpBaseUrl } = options
  const notices = new Notices(options)
  const boot = { serverIp, httpBaseUrl }
  const boots = new BootDesk(boot, { notices, clock })
  const sockets: Socket[] = []
  let listener: Listener | undefined
  let pool: Pool | undefined

  const responder = async (): Promise<Responder> => {
    if (mode === 'proxy') return createProxyResponder({ boots, notices, boot })
    pool = await loadPool(options)
    return createLeaseResponder({
      leases: new LeaseDesk(pool, options.leases, clock),
      ...{ boots, notices, boot, network: options },
      hostnameFor: options.hostnameFor ?? (() => undefined),
    })
  }

  const open = async (port: Ear['port'], address: Ipv4) => {
    const { networkInterface, openUdp } = options
    const receiveBufferBytes = RECEIVE_BUFFER_BYTES
    const socket = await openUdp({ port, address, networkInterface, broadcast: true, receiveBufferBytes })
    socket.on('error', (error) => log.warn({ err: error, port }, 'DHCP: a socket reported an error'))
    sockets.push(socket)
    return socket
  }

  return {
    name: `dhcp (${mode})`,
    async start() {
      const unicast = await open(DHCP_PORT.server, serverIp)
      if (mode === 'server') await refuseBesideOtherServer({ ...options, relaySocket: unicast })
      const broadcast = await open(DHCP_PORT.server, BROADCAST_IPV4)
      listener = new Listener(await responder(), options)
      const speakers = { unicast, broadcast }
      listener.listen(unicast, { port: DHCP_PORT.server, arrived: 'unicast' }, speakers)
      listener.listen(broadcast, { port: DHCP_PORT.server, arrived: 'broadcast' }, speakers)
      if (mode === 'server') return
      const pxe = await open(DHCP_PORT.pxe, serverIp)
      listener.listen(pxe, { port: DHCP_PORT.pxe, arrived: 'unicast' }, { unicast: pxe, broadcast: pxe })
    },
    async stop() {
      for (const socket of sockets) socket.removeAllListeners('message')
      await listener?.idle()
      await Promise.all(sockets.splice(0).map(closeSocket))
    },
    bootScriptFetched: (mac) => boots.scriptFetched(mac),
    leasedTo: (ip) => pool?.holderOf(ip, clock.nowMs()),
    counts: () => listener?.counts ?? NO_COUNTS,
  }
}

async function loadPool(options: DhcpServiceOptions): Promise<Pool> {
  const takenIps = [...(options.router === undefined ? [] : [options.router]), ...options.dns]
  return new Pool({ ...options, takenIps }, await options.leases.list())
}

function closeSocket(socket: Socket): Promise<void> {
  return new Promise((resolve) => socket.close(resolve))
}
