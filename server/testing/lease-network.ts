// The lease engine over a pool of three addresses, with a store in memory and a clock that is turned by hand.

import { LeaseDesk } from '#dhcp/lease-desk.ts'
import type { LeaseAsk, LeaseDecision, LeasePolicy } from '#dhcp/lease-types.ts'
import { Pool } from '#dhcp/pool.ts'
import type { Clock } from '#lib/clock.ts'
import { type Ipv4, parseIpv4, parseSubnet } from '#lib/ipv4.ts'
import { type Mac, parseMac } from '#lib/mac.ts'
import type { Lease, LeaseStore } from '#machine/lease-ports.ts'

export const SERVER = parseIpv4('10.77.0.1')
export const ROUTER = parseIpv4('10.77.0.2')
export const OTHER_SERVER = parseIpv4('10.77.0.3')
export const LEASE_SECONDS = 3600
export const ip = (last: number) => parseIpv4(`10.77.0.${last}`)
export const mac = (last: number) => parseMac(`52:54:00:00:00:${last.toString(16).padStart(2, '0')}`)

export type Question = Partial<LeaseAsk> & Pick<LeaseAsk, 'type'>

/** A network 10.77.0.0/24 with the pool .10–.12 and a clock that is turned by hand. */
export function makeLeaseNetwork(
  overrides: Partial<LeasePolicy> = {},
  options: { maxOffers?: number; hasPool?: boolean } = {},
) {
  let nowMs = 1_000_000
  const stored = new Map<Ipv4, Lease>()
  const reservations = new Map<Mac, Ipv4>()
  const store: LeaseStore = {
    list: async () => [...stored.values()],
    put: async (lease) => void stored.set(lease.ip, lease),
    remove: async (address) => void stored.delete(address),
  }
  const policy: LeasePolicy = {
    serverIp: SERVER,
    subnet: parseSubnet('10.77.0.0/24'),
    ...(options.hasPool !== false && { pool: { first: ip(10), last: ip(12) } }),
    takenIps: [ROUTER],
    leaseSeconds: LEASE_SECONDS,
    unknownLeaseSeconds: LEASE_SECONDS,
    keptPercent: 0,
    isKnown: () => false,
    reservationFor: (owner) => reservations.get(owner),
    reservedTo: (address) => [...reservations].find(([, reserved]) => reserved === address)?.[0],
    ...overrides,
  }
  const clock = { nowMs: () => nowMs, monotonicMs: () => nowMs, after: () => () => {} } satisfies Clock
  const open = () => new LeaseDesk(new Pool(policy, [...stored.values()], options.maxOffers), store, clock)
  let desk = open()
  const settle = (who: number, question: Question): Promise<LeaseDecision> =>
    desk.settle({ clientKey: `mac:${mac(who)}`, mac: mac(who), arrived: 'broadcast', ...question })
  return {
    settle,
    stored,
    reservations,
    store,
    /** DISCOVER and REQUEST; the address. */
    async obtain(who: number, question: Partial<LeaseAsk> = {}): Promise<Ipv4> {
      const offer = await settle(who, { ...question, type: 'discover' })
      if (offer.kind !== 'offer') throw new Error(`no offer: ${JSON.stringify(offer)}`)
      const select = { ...question, type: 'request', requestedIp: offer.ip, serverId: SERVER } as const
      const ack = await settle(who, select)
      if (ack.kind !== 'ack') throw new Error(`no ACK: ${JSON.stringify(ack)}`)
      return ack.lease.ip
    },
    /** When it is, on the clock that `pass` turns. */
    nowMs: () => nowMs,
    pass(ms: number) {
      nowMs += ms
    },
    /** What a restarted server does: all it knows is in the store. */
    restart() {
      desk = open()
    },
  }
}

/** The parts of a decision worth comparing. */
export function brief(decision: LeaseDecision): string {
  switch (decision.kind) {
    case 'offer':
      return `offer ${decision.ip}`
    case 'ack':
      return `ack ${decision.lease.ip}`
    case 'nak':
    case 'silent':
      return `${decision.kind} ${decision.reason}`
    default:
      return decision.kind
  }
}
