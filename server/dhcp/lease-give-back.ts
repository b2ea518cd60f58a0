// DECLINE and RELEASE: the two ways a client gives its address back. Neither is answered.

import type { Ipv4 } from '#lib/ipv4.ts'

import { isHeldBy } from './lease-index.ts'
import { QUARANTINE_MS } from './lease-times.ts'
import type { LeaseAsk, LeaseDecision } from './lease-types.ts'
import type { Pool } from './pool.ts'

/**
 * The client found its address in use by something else (RFC 2131 §4.3.3): nobody gets it for some hours.
 * Only from the client that holds it, or anybody could have the whole pool set aside.
 */
export function decideDecline(ask: LeaseAsk, pool: Pool, nowMs: number): LeaseDecision {
  if (isForAnother(ask, pool)) return { kind: 'silent', reason: 'other-server' }
  const ip = ask.requestedIp
  if (ip === undefined) return { kind: 'silent', reason: 'malformed' }
  if (!holds(ask, ip, pool, nowMs)) return { kind: 'silent', reason: 'not-its-address' }
  const lease = {
    ip,
    clientKey: '',
    mac: ask.mac,
    expiresMs: nowMs + QUARANTINE_MS,
    kind: 'declined',
  } as const
  return { kind: 'decline', lease }
}

/** The lease ends now, but stays on record: the client gets the same address when it comes back (RFC 2131 §4.3.4). */
export function decideRelease(ask: LeaseAsk, pool: Pool, nowMs: number): LeaseDecision {
  if (isForAnother(ask, pool)) return { kind: 'silent', reason: 'other-server' }
  const ip = ask.clientIp
  if (ip === undefined) return { kind: 'silent', reason: 'malformed' }
  const lease = pool.leaseAt(ip)
  if (lease === undefined || !holds(ask, ip, pool, nowMs))
    return { kind: 'silent', reason: 'not-its-address' }
  return { kind: 'release', lease: { ...lease, expiresMs: nowMs } }
}

/** Option 54 MUST be there (RFC 2131 table 5); a client that leaves it out can only mean us. */
function isForAnother(ask: LeaseAsk, pool: Pool): boolean {
  return ask.serverId !== undefined && ask.serverId !== pool.policy.serverIp
}

function holds(ask: LeaseAsk, ip: Ipv4, pool: Pool, nowMs: number): boolean {
  const lease = pool.leaseAt(ip)
  return lease !== undefined && lease.expiresMs > nowMs && isHeldBy(lease, ask)
}
