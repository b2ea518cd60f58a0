// What a client message means for its address: RFC 2131 §4.3 as pure decisions. Nothing here changes the pool.
//
// Authority. RFC 2131 §4.3.2 has a server stay silent to clients it has no record of, for the sake of other servers
// on the link. Server mode starts only where no other server answers (probe.ts), so here every address of our subnet
// is ours to judge: a client without a record keeps its address when it is free and in the pool (the record was
// lost, the client should not lose its network), and gets a NAK at once when it is not, instead of waiting minutes.

import { subnetHas } from '#lib/ipv4.ts'
import { decideDiscover } from './lease-discover.ts'
import { decideDecline, decideRelease } from './lease-give-back.ts'
import { decideRequest } from './lease-request.ts'
import type { LeaseAsk, LeaseDecision } from './lease-types.ts'
import type { Pool } from './pool.ts'

export function decideLease(ask: LeaseAsk, pool: Pool, nowMs: number): LeaseDecision {
  // A relay agent names the network the client is on; only our own has a pool.
  if (ask.relayIp !== undefined && !subnetHas(pool.policy.subnet, ask.relayIp)) {
    return { kind: 'silent', reason: 'other-subnet' }
  }
  switch (ask.type) {
    case 'discover':
      return decideDiscover(ask, pool, nowMs)
    case 'request':
      return decideRequest(ask, pool, nowMs)
    case 'decline':
      return decideDecline(ask, pool, nowMs)
    case 'release':
      return decideRelease(ask, pool, nowMs)
    case 'inform':
      return decideInform(ask, pool)
    default:
      return ask.type satisfies never
  }
}

/** Answered to "ciaddr" (RFC 2131 §4.3.5), so only where that is in our subnet: not a means to send packets anywhere. */
function decideInform(ask: LeaseAsk, pool: Pool): LeaseDecision {
  if (ask.clientIp === undefined) return { kind: 'silent', reason: 'malformed' }
  if (!subnetHas(pool.policy.subnet, ask.clientIp)) return { kind: 'silent', reason: 'other-subnet' }
  return { kind: 'inform-ack' }
}
