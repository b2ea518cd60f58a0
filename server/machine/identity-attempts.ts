// Machines on their way to an identity, bounded and soon forgotten: whoever stands here has proved nothing.

import { randomBytes } from 'node:crypto'

import type { Clock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import type { Ipv4 } from '#lib/ipv4.ts'
import type { Mac } from '#lib/mac.ts'

import type { Attempt } from './identity.ts'
import type { CertificateRequest, IdentityStep, VerifiedClaim } from './identity-ports.ts'

/** What a machine brought with it. */
export interface Claimant {
  /** As it called itself in the path. */
  readonly mac: Mac
  /** All it says are its own; `mac` need not be among them. */
  readonly macs: readonly Mac[]
  readonly uuid?: string
  readonly address?: Ipv4
  readonly request: CertificateRequest
  readonly tpm?: { readonly claim: VerifiedClaim; readonly isProved: boolean }
}

export interface OpenAttempt {
  readonly id: string
  readonly claimant: Claimant
  readonly commitment: string
  /** `over`: there is nothing left to do but to hear of it. */
  readonly state: Attempt['state'] | 'over'
  readonly isConflict: boolean
  /** What `look` answers. */
  readonly step: IdentityStep
  /** While it is challenged: what only the TPM that it names can read. */
  readonly secret?: Uint8Array
  readonly serverNonce?: string
  readonly machineNonce?: string
  /** On its console. */
  readonly code?: string
  readonly sinceMs: number
}

const FORGOTTEN_AFTER_MS = 15 * 60_000
const MOST_OF_ONE_MAC = 8
const MOST = 512
const TRIES = 3

interface Kept {
  readonly attempt: OpenAttempt
  readonly heardMs: number
}

export class AttemptBook {
  readonly #clock: Clock
  /** In the order they were opened. */
  readonly #kept = new Map<string, Kept>()
  readonly #wrongCodes = new Map<Mac, number>()
  readonly #listeners = new Set<() => void>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  nowMs(): number {
    return this.#clock.nowMs()
  }

  list(): readonly OpenAttempt[] {
    this.#forgetOld()
    return [...this.#kept.values()].map(({ attempt }) => attempt)
  }

  /** A word of the machine: keeps the attempt alive. Throws KitError `not-found`. */
  hear(mac: Mac, id: string): OpenAttempt {
    this.#forgetOld()
    const kept = this.#kept.get(id)
    if (kept === undefined || kept.attempt.claimant.mac !== mac) {
      throw new KitError('not-found', 'Cannot go on with this attempt: it is forgotten, begin anew')
    }
    this.#kept.set(id, { ...kept, heardMs: this.#clock.monotonicMs() })
    return kept.attempt
  }

  /** The id of a new attempt, for which there is room. Throws KitError `too-many-requests`. */
  newId({ mac, address, request }: Claimant): string {
    this.#forgetOld()
    // The same key again is the same machine, which has begun anew.
    for (const { id, claimant } of this.list()) {
      if (claimant.mac === mac && claimant.request.keySha256 === request.keySha256) this.#kept.delete(id)
    }
    const own = this.list().filter(({ claimant }) => claimant.mac === mac)
    this.#makeRoom(own, { most: MOST_OF_ONE_MAC, address })
    this.#makeRoom(this.list(), { most: MOST, address })
    return randomBytes(16).toString('hex')
  }

  put(attempt: OpenAttempt): OpenAttempt {
    this.#kept.set(attempt.id, { attempt, heardMs: this.#clock.monotonicMs() })
    this.#tell()
    return attempt
  }

  /** The machine hears `step` when it asks, and nothing else becomes of it. */
  end(attempt: OpenAttempt, step: IdentityStep): void {
    const kept = this.#kept.get(attempt.id)
    if (kept === undefined) return
    const { secret: _secret, code: _code, ...rest } = attempt
    this.#kept.set(attempt.id, { ...kept, attempt: { ...rest, state: 'over', step } })
    this.#tell()
  }

  remove(id: string): void {
    this.#kept.delete(id)
    this.#tell()
  }

  /** How many tries a person has left for the machine; with none, counting begins anew. */
  countWrongCode(mac: Mac): number {
    const left = TRIES - (this.#wrongCodes.get(mac) ?? 0) - 1
    if (left > 0) this.#wrongCodes.set(mac, TRIES - left)
    else this.#wrongCodes.delete(mac)
    return left
  }

  forgetWrongCodes(mac: Mac): void {
    this.#wrongCodes.delete(mac)
  }

  /**
   * Whoever has most of them gives way: one address that opens as many as it can keeps nobody else out. Throws when that
   * is the one that asks.
   */
  #makeRoom(
    attempts: readonly OpenAttempt[],
    { most, address }: { most: number; address: Ipv4 | undefined },
  ): void {
    if (attempts.length < most) return
    const over = attempts.find(({ state }) => state === 'over')
    if (over !== undefined) {
      this.#kept.delete(over.id)
      return
    }
    const byAddress = Map.groupBy(attempts, ({ claimant }) => claimant.address ?? '')
    const [largest = []] = [...byAddress.values()].sort((one, other) => other.length - one.length)
    const [oldest] = largest
    if (oldest === undefined || (byAddress.get(address ?? '')?.length ?? 0) >= largest.length) {
      throw new KitError('too-many-requests', 'Cannot begin another attempt: too many are waiting')
    }
    this.#kept.delete(oldest.id)
  }

  #forgetOld(): void {
    const sinceMs = this.#clock.monotonicMs() - FORGOTTEN_AFTER_MS
    for (const [id, { heardMs }] of this.#kept) if (heardMs <= sinceMs) this.#kept.delete(id)
    if (this.#kept.size === 0) this.#wrongCodes.clear()
  }

  #tell(): void {
    for (const listener of this.#listeners) listener()
  }
}
