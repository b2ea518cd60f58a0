// The interfaces of people and programs that use the API: tokens with roles, and the audit log.

/** Least first: each may do what those before it may. */
export const TOKEN_ROLES = ['viewer', 'operator', 'admin'] as const
export type TokenRole = (typeof TOKEN_ROLES)[number]

export interface TokenInfo {
  readonly id: string
  readonly name: string
  readonly role: TokenRole
  readonly createdMs: number
  readonly expiresMs?: number
  /** To the minute. */
  readonly lastUsedMs?: number
  readonly revokedMs?: number
}

export interface NewToken {
  readonly name: string
  readonly role: TokenRole
  readonly expiresMs?: number
}

export interface TokenStore {
  /** Makes a token; `secret` is not stored and cannot be had again. */
  make(token: NewToken): Promise<{ readonly info: TokenInfo; readonly secret: string }>
  /** What the secret stands for, or undefined (unknown, expired, revoked). Takes the same time either way. */
  verify(secret: string): Promise<TokenInfo | undefined>
  list(): Promise<readonly TokenInfo[]>
  /** Throws KitError `not-found`. */
  revoke(id: string): Promise<TokenInfo>
}

/** Something that somebody did, or tried to do. */
export interface NewAuditEntry {
  /** `token <name> (<id>)`, `control socket`, `machine <mac>`, `server`, `anonymous <address>`. */
  readonly actor: string
  /** `POST /machines/:mac/powerwash`, or a word for what is no request: `identity-issued`. */
  readonly action: string
  /** What it was done to: a MAC, a version, a token's id; empty for none. */
  readonly target: string
  /** `done`, or the code of the error. */
  readonly outcome: string
  /** One line; never a secret. */
  readonly detail: string
}

export interface AuditEntry extends NewAuditEntry {
  /** Counts up from 1 without a gap. */
  readonly id: number
  readonly atMs: number
  /** sha256, hex, over the hash of the entry before and all fields of this one. */
  readonly hash: string
}

export interface AuditLog {
  /** Committed when it resolves. */
  append(entry: NewAuditEntry): Promise<AuditEntry>
  /** Those after `afterId`, else the newest; oldest first. */
  list(query: { readonly afterId?: number; readonly limit: number }): Promise<readonly AuditEntry[]>
  /** Reads all of it. `rememberedHead` is a head that was told earlier: whether it is still part of the chain. */
  verify(rememberedHead?: string): Promise<AuditVerdict>
}

export interface AuditVerdict {
  readonly entries: number
  /** The hash of the newest entry: kept elsewhere, it shows whether the end was cut off. */
  readonly head: string
  /** Of the entry that has the remembered head as its hash; 0 for the head of an empty log, absent when none has it. */
  readonly rememberedId?: number
  /** The first entry that is not as it was written; nothing after it was looked at. */
  readonly problem?: { readonly id: number; readonly message: string }
}
