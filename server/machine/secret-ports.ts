// The interfaces of secret files: sealed in the profile tree, opened in memory, handed to the machine they belong to.

import type { Mac } from '#lib/mac.ts'

import type { ExplainedFile, ProfileProblem, Speaker } from './ports.ts'

/** The setting `secrets-kept`: whether a machine may keep a copy on its persistence partition. */
export const SECRETS_KEPT = ['persist', 'memory'] as const
export type SecretsKept = (typeof SECRETS_KEPT)[number]

export interface SecretsInfo {
  /** sha256 of the archive, hex. */
  readonly digest: string
  readonly sizeBytes: number
}

/** In memory only: nothing of it is ever written down, or logged. */
export interface SecretsArchive extends SecretsInfo {
  /** A tar. */
  readonly bytes: Uint8Array
}

export interface ExplainedSecrets {
  readonly files: readonly ExplainedFile[]
  /** Those of the machine's layers. */
  readonly problems: readonly ProfileProblem[]
}

/** The files under `secret/` of a machine's layers, as they are now. */
export interface Secrets {
  /** Undefined when it has none. What is wrong with a file is told elsewhere and costs that file only. */
  secretsFor(mac: Mac): Promise<SecretsInfo | undefined>
  read(mac: Mac): Promise<SecretsArchive | undefined>
  /** Paths, layers, modes; never what is in them. */
  explain(mac: Mac): Promise<ExplainedSecrets>
}

/** The server's own age identity. */
export interface SecretsKey {
  /** `age1…`: what files are sealed for. Throws KitError `unavailable` before the start. */
  recipient(): string
  /** Throws KitError `invalid-input`, fit to be shown: it is no age file, it is sealed for somebody else, it is damaged. */
  open(sealed: Uint8Array): Promise<Uint8Array>
}

/** Where machines come for their secrets. */
export interface SecretsDesk {
  /**
   * Hands them out: to the key that used the boot first, and only for the boot that checked in last. It is in the history and
   * the audit log when it resolves. Throws KitError `identity-needed`, `wrong-machine`, `stale-boot`, `not-found`, `conflict`,
   * `unavailable`.
   */
  hand(mac: Mac, boot: string, by: Speaker): Promise<SecretsArchive>
}
