// How long leases and quarantines last.

/** A client that asks for seconds would renew without end. */
const MIN_LEASE_SECONDS = 60

/** How long an address that a client found in use (DECLINE) is kept away from everybody. */
export const QUARANTINE_MS = 4 * 60 * 60 * 1000

/** The client may ask for less than the configured time, never for more (option 51; 0xffffffff asks for ever). */
export function grantedSeconds(asked: number | undefined, configured: number): number {
  return Math.min(Math.max(asked ?? configured, MIN_LEASE_SECONDS), configured)
}

/** T1 and T2, when the client turns to this server and then to any (RFC 2131 §4.4.5). */
export function renewalTimes(leaseSeconds: number): { renewSeconds: number; rebindSeconds: number } {
  return { renewSeconds: Math.floor(leaseSeconds * 0.5), rebindSeconds: Math.floor(leaseSeconds * 0.875) }
}
