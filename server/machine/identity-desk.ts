// Where machines prove who they are, step by step: docs/ports-and-endpoints.md, "How a machine proves who it is".

import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'

import { KitError } from '#lib/errors.ts'
import type { KeyedQueue } from '#lib/keyed-queue.ts'
import type { Mac } from '#lib/mac.ts'

import type { Identity } from './identity.ts'
import type { AttemptBook, Claimant, OpenAttempt } from './identity-attempts.ts'
import type { IdentityBook } from './identity-book.ts'
import { decideIdentity, type IdentityDecision } from './identity-decision.ts'
import type { IdentityIssuer } from './identity-issuer.ts'
import type { Case, IdentityJudge } from './identity-judge.ts'
import type { IdentityNews } from './identity-news.ts'
import type {
  Authority,
  IdentityAnswer,
  IdentityDesk,
  IdentityRequest,
  IdentityStep,
  TpmVerifier,
} from './identity-ports.ts'
import type { MachineAudit } from './machine-audit.ts'
import { keepsCommitment, pairingCode } from './pairing-code.ts'
import type { EventLog } from './ports.ts'
import { Repeats } from './repeats.ts'

export interface IdentityParts {
  readonly book: IdentityBook
  readonly attempts: AttemptBook
  readonly judge: IdentityJudge
  readonly issuer: IdentityIssuer
  readonly news: IdentityNews
  readonly authority: Authority
  readonly tpm: TpmVerifier
  readonly events: EventLog
  readonly audit: MachineAudit
  /** Everything that may change an identity goes through it, one after another. */
  readonly queue: KeyedQueue<'identities'>
}

export class MachineIdentityDesk implements IdentityDesk {
  readonly #parts: IdentityParts
  readonly #wrongMachines = new Repeats()

  constructor(parts: IdentityParts) {
    this.#parts = parts
  }

  async request(mac: Mac, asked: IdentityRequest): Promise<IdentityStep> {
    const { authority, tpm } = this.#parts
    const request = authority.readRequest(asked.csr)
    const claim = asked.tpm === undefined ? undefined : tpm.readClaim(asked.tpm, request)
    const claimant: Claimant = {
      // A disk that was moved still calls itself by the MAC of the machine that it comes from.
      ...{ mac, macs: asked.macs.length === 0 ? [mac] : [...new Set(asked.macs)], request },
      ...(asked.uuid !== undefined && { uuid: asked.uuid }),
      ...(asked.address !== undefined && { address: asked.address }),
      ...(claim !== undefined && { tpm: { claim, isProved: false } }),
    }
    return this.#inTurn(() => this.#begin(claimant, asked.commitment))
  }

  async answer(mac: Mac, id: string, answer: IdentityAnswer): Promise<IdentityStep> {
    return this.#inTurn(async () => {
      const attempt = this.#parts.attempts.hear(mac, id)
      // What was answered already is answered again: the machine may not have heard of it.
      if (attempt.state === 'challenge' && answer.kind === 'proof')
        return this.#takeProof(attempt, answer.proof)
      if (attempt.state === 'pairing' && answer.kind === 'nonce')
        return this.#takeNonce(attempt, answer.nonce)
      return attempt.step
    })
  }

  async look(mac: Mac, id: string): Promise<IdentityStep> {
    return this.#parts.attempts.hear(mac, id).step
  }

  onAttemptChange(listener: () => void): () => void {
    return this.#parts.attempts.onChange(listener)
  }

  identityOfKey(keySha256: string): Identity | undefined {
    const { book, judge } = this.#parts
    const identity = book.ofKey(keySha256)
    return identity !== undefined && judge.isEnough(identity) ? identity : undefined
  }

  async noteKept(keySha256: string): Promise<void> {
    const { book } = this.#parts
    if (book.ofKey(keySha256)?.isKept !== undefined) return
    await this.#inTurn(async () => {
      const identity = book.ofKey(keySha256)
      if (identity !== undefined) await book.save({ ...identity, isKept: true })
    })
  }

  primaryOf(mac: Mac): Mac {
    return this.#parts.book.primaryOf(mac)
  }

  async noteRefusal(mac: Mac, by: Identity): Promise<void> {
    if (!this.#wrongMachines.isNews(by.mac, mac)) return
    await this.#parts.audit.refused({
      ...{ actor: `machine ${by.mac}`, action: 'wrong-machine', target: mac, outcome: 'wrong-machine' },
      detail: `key=${by.keySha256}`,
    })
    await this.#parts.events.append({
      kind: 'wrong-machine',
      mac: by.mac,
      message: `it asked for what is of ${mac}`,
      data: { asked: mac, by: by.mac, key: by.keySha256 },
    })
  }

  #inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    return this.#parts.queue.run('identities', work)
  }

  async #begin(claimant: Claimant, commitment: string): Promise<IdentityStep> {
    const found = await this.#parts.judge.judge(claimant)
    const decision = decideIdentity(found.facts)
    if (decision.kind === 'issue') return (await this.#parts.issuer.issue(claimant, found, decision)).step
    if (decision.kind === 'refused') return this.#refuse(claimant, found, decision)
    const id = this.#parts.attempts.newId(claimant)
    return this.#open({ id, claimant, commitment, sinceMs: this.#parts.attempts.nowMs() }, decision)
  }

  /** One try: the secret was meant for one TPM, which reads it or does not. */
  async #takeProof(attempt: OpenAttempt, proof: string): Promise<IdentityStep> {
    const { attempts, judge, issuer, news } = this.#parts
    const { tpm, request } = attempt.claimant
    if (tpm === undefined || !isProof(proof, attempt.secret, request.digest)) {
      attempts.remove(attempt.id)
      const reason = 'its proof is not by the TPM that it names'
      const { subject } = await judge.judge(attempt.claimant)
      await news.tell(subject, attempt.claimant, { kind: 'identity-refused', message: reason })
      throw refusal(attempt.claimant.mac, reason)
    }
    const claimant: Claimant = { ...attempt.claimant, tpm: { ...tpm, isProved: true } }
    const proved = { ...attempt, claimant }
    const found = await judge.judge(claimant)
    const decision = decideIdentity(found.facts)
    switch (decision.kind) {
      case 'issue': {
        const { step } = await issuer.issue(claimant, found, decision)
        attempts.end(proved, step)
        return step
      }
      case 'refused':
        return this.#refuse(claimant, found, decision, proved)
      case 'pairing':
      case 'challenge': // never: the TPM is proved
        return this.#open(proved, { kind: 'pairing', isConflict: found.facts.known !== undefined })
      default:
        return decision satisfies never
    }
  }

  async #takeNonce(attempt: OpenAttempt, machineNonce: string): Promise<IdentityStep> {
    const { attempts, authority, judge, news } = this.#parts
    const { claimant, commitment, serverNonce = '' } = attempt
    const { subject, facts } = await judge.judge(claimant)
    if (!keepsCommitment(commitment, machineNonce)) {
      attempts.remove(attempt.id)
      const reason = 'its nonce is not the one it had committed itself to'
      await news.tell(subject, claimant, { kind: 'identity-refused', message: reason })
      throw refusal(claimant.mac, reason)
    }
    const isConflict = facts.known !== undefined
    const { mac, request } = claimant
    const words = { mac, keySha256: request.keySha256, caFingerprint: authority.fingerprint }
    const code = pairingCode({ ...words, machineNonce, serverNonce })
    const step: IdentityStep = { kind: 'waiting', attempt: attempt.id, isConflict }
    attempts.put({ ...attempt, state: 'waiting', machineNonce, code, isConflict, step })
    const command = `kateskit pair ${subject} <code>${isConflict ? ' --replace' : ''}`
    await news.tell(subject, claimant, {
      kind: 'pairing-waiting',
      message: `it shows a code on its console: ${command}`,
      data: { replace: isConflict },
    })
    return step
  }

  async #open(
    begun: Pick<OpenAttempt, 'id' | 'claimant' | 'commitment' | 'sinceMs'>,
    decision: Extract<IdentityDecision, { kind: 'challenge' | 'pairing' }>,
  ): Promise<IdentityStep> {
    const { attempts, judge, news } = this.#parts
    const { id, claimant } = begun
    if (decision.kind === 'challenge' && claimant.tpm !== undefined) {
      const { credential, secret } = claimant.tpm.claim.makeCredential()
      const step: IdentityStep = { kind: 'challenge', attempt: id, credential }
      attempts.put({ ...begun, state: 'challenge', isConflict: false, secret, step })
      return step
    }
    const nonce = randomBytes(16).toString('hex')
    const isConflict = decision.kind === 'pairing' && decision.isConflict
    const step: IdentityStep = { kind: 'pairing', attempt: id, nonce }
    attempts.put({ ...begun, state: 'pairing', isConflict, serverNonce: nonce, step })
    if (isConflict) {
      const { subject, known } = await judge.judge(claimant)
      await news.tell(subject, claimant, { kind: 'identity-conflict', message: conflictOf(known) })
    }
    return step
  }

  /** Throws KitError `identity-refused`, unless the machine can wait for somebody to approve its TPM. */
  async #refuse(
    claimant: Claimant,
    { subject, known }: Case,
    { reason, isConflict, needsApproval }: Extract<IdentityDecision, { kind: 'refused' }>,
    attempt?: OpenAttempt,
  ): Promise<IdentityStep> {
    const { attempts, news } = this.#parts
    const isOther = isConflict && known !== undefined && known.keySha256 !== claimant.request.keySha256
    const message = isOther ? `${conflictOf(known)}; ${reason}` : reason
    await news.tell(subject, claimant, {
      kind: isConflict ? 'identity-conflict' : 'identity-refused',
      message,
    })
    if (attempt === undefined || !needsApproval) {
      if (attempt !== undefined) attempts.remove(attempt.id)
      throw refusal(claimant.mac, reason)
    }
    const step: IdentityStep = { kind: 'closed', reason: `${reason}: kateskit approve ${subject}` }
    const { secret: _secret, ...rest } = attempt
    attempts.put({ ...rest, state: 'refused', isConflict, step })
    return step
  }
}

function conflictOf(known: Identity | undefined): string {
  const since = known === undefined ? '' : ` (${known.tier})`
  return `it is known by another key${since}, so this one is set aside until a person takes it in`
}

function isProof(proof: string, secret: Uint8Array | undefined, digest: Uint8Array): boolean {
  if (secret === undefined) return false
  const expected = createHmac('sha256', secret).update(digest).digest()
  const given = Buffer.from(proof, 'hex')
  return given.length === expected.length && timingSafeEqual(given, expected)
}

function refusal(mac: Mac, reason: string): KitError {
  return new KitError('identity-refused', `Cannot take this machine for ${mac}: ${reason}`)
}
