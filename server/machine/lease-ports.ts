// The interfaces of leases: who was promised which address.

import type { Ipv4 } from '#lib/ipv4.ts'
import type { Mac } from '#lib/mac.ts'

/** An address promised to a client. */
export interface Lease {
  readonly ip: Ipv4
  /** Option 61 as hex, or `mac:<mac>` for a client that sent none (RFC 2131 §4.2). */
  readonly clientKey: string
  readonly mac: Mac
  readonly hostname?: string
  /** Milliseconds since 1970. */
  readonly expiresMs: number
  /** `declined`: found in use by the client; kept away from everybody until it expires (then `clientKey` means nothing). */
  readonly kind: 'leased' | 'declined'
}

export interface LeaseStore {
  /** Expired ones too: a client that comes back gets its old address. */
  list(): Promise<readonly Lease[]>
  /** Replaces what is known of `lease.ip`; on disk when it resolves, and not before. */
  put(lease: Lease): Promise<void>
  remove(ip: Ipv4): Promise<void>
}
