// REQUEST in the four states a client can be in, told apart by table 4 of RFC 2131 §4.3.6.

import type { Ipv4 } from '#lib/ipv4.ts'
import { subnetHas } from '#lib/ipv4.ts'

import type { LeaseAsk, LeaseDecision, NakReason } from './lease-types.ts'
import type { Pool } from './pool.ts'
import { secondsFor } from './pool-shares.ts'

export type RequestState =
  | { readonly kind: 'selecting'; readonly ip: Ipv4; readonly serverId: Ipv4 }
  | { readonly kind: 'init-reboot'; readonly ip: Ipv4 }
  | { readonly kind: 'renewing'; readonly ip: Ipv4 }
  | { readonly kind: 'rebinding'; readonly ip: Ipv4 }
  | { readonly kind: 'malformed' }

/**
 * |                | SELECTING | INIT-REBOOT | RENEWING | REBINDING |
 * | sent           | broadcast | broadcast   | unicast  | broadcast |
 * | server id (54) | MUST      | MUST NOT    | MUST NOT | MUST NOT  |
 * | requested (50) | MUST      | MUST        | MUST NOT | MUST NOT  |
 * | ciaddr         | zero      | zero        | address  | address   |
 *
 * "ciaddr" decides first: clients in the field repeat options 50 and 54 when they renew.
 */
export function requestState(ask: LeaseAsk): RequestState {
  const { clientIp, requestedIp, serverId } = ask
  if (clientIp !== undefined) {
    return { kind: ask.arrived === 'unicast' ? 'renewing' : 'rebinding', ip: clientIp }
  }
  if (requestedIp === undefined) return { kind: 'malformed' }
  if (serverId !== undefined) return { kind: 'selecting', ip: requestedIp, serverId }
  return { kind: 'init-reboot', ip: requestedIp }
}

export function decideRequest(ask: LeaseAsk, pool: Pool, nowMs: number): LeaseDecision {
  const { serverIp, subnet } = pool.policy
  // The `dhcp` npm client 0.2 names neither address nor server when it takes an offer: it can only mean ours.
  const offered = pool.offerTo(ask)
  const state = requestState(offered === undefined ? ask : { requestedIp: offered, ...ask })
  if (state.kind === 'malformed') return { kind: 'silent', reason: 'malformed' }
  // SELECTING: the client took another server's offer. In the other states a strict client sends no server id.
  if (ask.serverId !== undefined && ask.serverId !== serverIp)
    return { kind: 'silent', reason: 'other-server' }
  // A unicast from an address beyond a router: that client is on no network of ours, and a broadcast NAK would miss it.
  if (state.kind === 'renewing' && !subnetHas(subnet, state.ip)) {
    return { kind: 'silent', reason: 'other-subnet' }
  }
  const nakReason = findNakReason(state, ask, pool, nowMs)
  if (nakReason !== undefined) return { kind: 'nak', reason: nakReason, ip: state.ip }
  return acknowledge(state.ip, ask, pool, nowMs)
}

function findNakReason(
  { kind, ip }: Exclude<RequestState, { kind: 'malformed' }>,
  ask: LeaseAsk,
  pool: Pool,
  nowMs: number,
): NakReason | undefined {
  const obstacle = pool.obstacleTo(ip, ask, nowMs)
  if (obstacle !== undefined) return obstacle
  const reserved = pool.policy.reservationFor(ask.mac)
  const canHaveReserved = reserved !== undefined && pool.obstacleTo(reserved, ask, nowMs) === undefined
  if (canHaveReserved) return reserved === ip ? undefined : 'reservation-changed'
  // INIT-REBOOT with a wrong notion of its address (RFC 2131 §4.3.2): one client would hold two. In the other states
  // it was just offered the address, or is using it.
  const own = pool.leaseOf(ask)
  const hasAnother = own !== undefined && own.ip !== ip && own.expiresMs > nowMs && pool.offerTo(ask) !== ip
  return kind === 'init-reboot' && hasAnother ? 'has-another' : undefined
}

function acknowledge(ip: Ipv4, ask: LeaseAsk, pool: Pool, nowMs: number): LeaseDecision {
  const leaseSeconds = secondsFor(pool.isKnown(ask), ask.leaseSeconds, pool.policy)
  const hostname = ask.hostname === undefined ? {} : { hostname: ask.hostname }
  return {
    kind: 'ack',
    lease: {
      ip,
      clientKey: ask.clientKey,
      mac: ask.mac,
      ...hostname,
      expiresMs: nowMs + leaseSeconds * 1000,
      kind: 'leased',
    },
    leaseSeconds,
    isFirst: pool.leaseAt(ip)?.mac !== ask.mac,
  }
}
