// Who a machine is, and what it showed for it. docs/security.md tells the rules.

import type { Ipv4 } from '#lib/ipv4.ts'
import type { Mac } from '#lib/mac.ts'

/** Strongest first. */
export const TIERS = ['tpm-approved', 'tpm-first-use', 'paired', 'mac-only'] as const
export type Tier = (typeof TIERS)[number]

/** The profile setting `identity`: what is asked of a machine whose key is not known. */
export const IDENTITY_RULES = ['paired', 'tpm-approved', 'tpm-first-use', 'mac-only'] as const
export type IdentityRule = (typeof IDENTITY_RULES)[number]

/** A machine that has proved who it is. */
export interface Identity {
  /** What it is known by everywhere else. */
  readonly mac: Mac
  /** All its network cards, `mac` among them. */
  readonly macs: readonly Mac[]
  readonly uuid?: string
  readonly tier: Tier
  /** sha256 of its public key (SubjectPublicKeyInfo, DER), hex. */
  readonly keySha256: string
  /** sha256 of the TPM's endorsement key (SubjectPublicKeyInfo, DER), hex. */
  readonly ekSha256?: string
  readonly sinceMs: number
  /** Who or what took it in: `token lab`, `control socket`, `ek-list`, `first use`. */
  readonly by: string
  /** Of the certificate it got last. */
  readonly certificateUntilMs: number
  /** A system on its disk has used the key. Until then, and of a live machine always, the key is gone with a restart. */
  readonly isKept?: true
}

/** A machine that is about to prove who it is. */
export interface Attempt {
  readonly id: string
  /** As it called itself in the path. */
  readonly mac: Mac
  readonly address?: Ipv4
  /** `refused`: it could be taken in if a person approved its TPM. */
  readonly state: 'challenge' | 'pairing' | 'waiting' | 'refused'
  readonly keySha256: string
  readonly ekSha256?: string
  readonly sinceMs: number
  /** The server knows another key, or another TPM, for this machine: set aside until a person says `--replace`. */
  readonly isConflict: boolean
}

/** A TPM whose machine needs no code. */
export interface Approval {
  readonly ekSha256: string
  readonly by: string
  readonly sinceMs: number
}
