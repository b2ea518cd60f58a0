// DISCOVER: which address to offer, in the order of RFC 2131 §4.3.1.

import type { Ipv4 } from '#lib/ipv4.ts'

import type { LeaseAsk, LeaseDecision } from './lease-types.ts'
import type { Pool } from './pool.ts'
import { secondsFor } from './pool-shares.ts'

export function decideDiscover(ask: LeaseAsk, pool: Pool, nowMs: number): LeaseDecision {
  const ip = findAddress(ask, pool, nowMs)
  if (ip === undefined) return { kind: 'silent', reason: 'pool-empty' }
  return { kind: 'offer', ip, leaseSeconds: secondsFor(pool.isKnown(ask), ask.leaseSeconds, pool.policy) }
}

/**
 * The reserved address; else the one the client has or had; else the one on offer to it (iPXE sends two DISCOVERs);
 * else the one it asks for; else a free one. A reserved address that somebody else still uses does not keep the
 * machine off the network: it gets another until the reservation can be kept, and a NAK then.
 */
function findAddress(ask: LeaseAsk, pool: Pool, nowMs: number): Ipv4 | undefined {
  const preferred = [
    pool.policy.reservationFor(ask.mac),
    pool.leaseOf(ask)?.ip,
    pool.offerTo(ask),
    ask.requestedIp,
  ]
  const free = preferred.find((ip) => ip !== undefined && pool.obstacleTo(ip, ask, nowMs) === undefined)
  return free ?? pool.findFree(ask, nowMs)
}
