// The interfaces of machine identity: the certificates, the store, and what the front doors need.

import type { Ipv4 } from '#lib/ipv4.ts'
import type { Mac } from '#lib/mac.ts'

import type { Approval, Attempt, Identity, Tier } from './identity.ts'

/** What a certificate request holds; its signature was checked. */
export interface CertificateRequest {
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Uint8Array
  /** sha256 of `publicKey`, hex. */
  readonly keySha256: string
  /** sha256 of the request itself, DER: 32 bytes. */
  readonly digest: Uint8Array
}

export interface Authority {
  /** The CA's certificate, PEM; and sha256 of its DER, hex. */
  readonly pem: string
  readonly fingerprint: string
  /** Throws KitError `invalid-input`: no request, not RSA of 2048 to 4096 bits, not signed by its own key. */
  readRequest(pem: string): CertificateRequest
  /** For client authentication only. */
  issueForMachine(request: CertificateRequest, mac: Mac): { readonly pem: string; readonly untilMs: number }
}

export interface IdentityStore {
  identities(): Promise<readonly Identity[]>
  /** Inserts or replaces by `mac`; committed when it resolves. */
  saveIdentity(identity: Identity): Promise<void>
  removeIdentity(mac: Mac): Promise<void>
  approvals(): Promise<readonly Approval[]>
  saveApproval(approval: Approval): Promise<void>
  removeApproval(ekSha256: string): Promise<void>
}

/** What a TPM says of itself, as it came over the wire. */
export interface TpmClaim {
  /** TPM2B_PUBLIC of the endorsement key, and of the machine's own key. */
  readonly ek: Uint8Array
  readonly key: Uint8Array
  /** X.509, DER. */
  readonly ekCertificate?: Uint8Array
}

/** The arithmetic of TPMs, and whom their makers vouch for. */
export interface TpmVerifier {
  /**
   * Throws KitError `invalid-input` when a public area cannot be read, or is not of the kind that docs/security.md asks for,
   * or the machine's key is not the one of the request.
   */
  readClaim(claim: TpmClaim, request: CertificateRequest): VerifiedClaim
}

export interface VerifiedClaim {
  readonly ekSha256: string
  /** By the list or the makers' CAs of the settings: `ek-list`, `ek-cas`; undefined when by neither. Reads them anew. */
  vouchedBy(): Promise<string | undefined>
  /** `credential` is the file that `tpm2_activatecredential -i` takes; the secret is to come back as an HMAC's key. */
  makeCredential(): { readonly credential: Uint8Array; readonly secret: Uint8Array }
}

export interface IdentityRequest {
  readonly csr: string
  readonly macs: readonly Mac[]
  readonly uuid?: string
  /** sha256 of its nonce (as text), hex. */
  readonly commitment: string
  readonly tpm?: TpmClaim
  readonly address?: Ipv4
}

export type IdentityAnswer =
  | { readonly kind: 'proof'; readonly proof: string }
  | { readonly kind: 'nonce'; readonly nonce: string }

/** docs/ports-and-endpoints.md, "How a machine proves who it is". */
export type IdentityStep =
  | { readonly kind: 'challenge'; readonly attempt: string; readonly credential: Uint8Array }
  | { readonly kind: 'pairing'; readonly attempt: string; readonly nonce: string }
  | { readonly kind: 'waiting'; readonly attempt: string; readonly isConflict: boolean }
  | { readonly kind: 'issued'; readonly mac: Mac; readonly tier: Tier; readonly certificate: string }
  | { readonly kind: 'closed'; readonly reason: string }

/** As machines see it. All throw KitError: `identity-refused`, `not-found`, `too-many-requests`, `invalid-input`. */
export interface IdentityDesk {
  request(mac: Mac, request: IdentityRequest): Promise<IdentityStep>
  answer(mac: Mac, attempt: string, answer: IdentityAnswer): Promise<IdentityStep>
  look(mac: Mac, attempt: string): Promise<IdentityStep>
  /** Called after any attempt has changed; the returned function unsubscribes. */
  onAttemptChange(listener: () => void): () => void
  /**
   * By the sha256 of the key of a certificate that our CA signed; undefined when it is not known, forgotten, or has shown
   * less than its files ask for by now.
   */
  identityOfKey(keySha256: string): Identity | undefined
  /** A system that runs from the disk of its machine has used this key. */
  noteKept(keySha256: string): Promise<void>
  /** What a MAC is an alias of; itself when it is of nothing. */
  primaryOf(mac: Mac): Mac
  /** Says so in the history: a proved machine asked for what is another's. */
  noteRefusal(mac: Mac, by: Identity): Promise<void>
}

/** As people see it. `by` is who asks: `token lab`, `control socket`. All throw KitError with a fix. */
export interface Identities {
  list(): readonly Identity[]
  find(mac: Mac): Identity | undefined
  attempts(): readonly Attempt[]
  approvals(): readonly Approval[]
  /** `wrong-code`, `not-found`, `conflict`. */
  pair(mac: Mac, code: string, options: { readonly replace: boolean; readonly by: string }): Promise<Identity>
  /** The endorsement key itself (hex), or the machine that has it. */
  approve(what: { readonly mac: Mac } | { readonly ekSha256: string }, by: string): Promise<Approval>
  withdraw(ekSha256: string): Promise<void>
  forget(mac: Mac, by: string): Promise<void>
}
