// Identities as people handle them: taking machines in, approving TPMs, forgetting.

import type { Clock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import type { Mac } from '#lib/mac.ts'

import type { Approval, Attempt, Identity } from './identity.ts'
import type { OpenAttempt } from './identity-attempts.ts'
import { decideIdentity, decidePaired } from './identity-decision.ts'
import type { IdentityParts } from './identity-desk.ts'
import type { Case } from './identity-judge.ts'
import type { Identities } from './identity-ports.ts'
import { isPairingCode } from './pairing-code.ts'

export interface KeeperOptions
  extends Pick<IdentityParts, 'book' | 'attempts' | 'judge' | 'issuer' | 'news' | 'events' | 'queue'> {
  readonly clock: Clock
  /** The key of a machine counts no more. */
  readonly onChange: () => void
}

type PairOptions = Parameters<Identities['pair']>[2]

export class IdentityKeeper implements Identities {
  readonly #options: KeeperOptions

  constructor(options: KeeperOptions) {
    this.#options = options
  }

  list(): readonly Identity[] {
    return this.#options.book.list()
  }

  find(mac: Mac): Identity | undefined {
    return this.#options.book.of(mac)
  }

  attempts(): readonly Attempt[] {
    return this.#options.attempts.list().flatMap((attempt) => viewOf(attempt) ?? [])
  }

  approvals(): readonly Approval[] {
    return this.#options.book.approvals()
  }

  async pair(mac: Mac, code: string, options: PairOptions): Promise<Identity> {
    return this.#inTurn(() => this.#pair(mac, code, options))
  }

  async approve(what: { readonly mac: Mac } | { readonly ekSha256: string }, by: string): Promise<Approval> {
    return this.#inTurn(async () => {
      const { book, events, clock } = this.#options
      const ekSha256 = 'mac' in what ? this.#ekOf(what.mac) : what.ekSha256
      const known = book.approvalOf(ekSha256)
      if (known !== undefined) return known
      const approval: Approval = { ekSha256, by, sinceMs: clock.nowMs() }
      const mac = 'mac' in what ? what.mac : book.ofEk(ekSha256)?.mac
      await Promise.all([
        book.saveApproval(approval),
        this.#retier(ekSha256, { tier: 'tpm-approved', by }),
        events.append({
          kind: 'tpm-approved',
          ...(mac !== undefined && { mac }),
          message: `${by} approved the TPM ${ekSha256.slice(0, 16)}`,
          data: { ek: ekSha256, by },
        }),
      ])
      await this.#takeInApproved(ekSha256)
      return approval
    })
  }

  async withdraw(ekSha256: string): Promise<void> {
    await this.#inTurn(async () => {
      const { book, events } = this.#options
      if (book.approvalOf(ekSha256) === undefined) {
        throw new KitError('not-found', `Cannot withdraw the approval of ${ekSha256}: there is none`, {
          fix: 'kateskit identities lists them',
        })
      }
      await Promise.all([
        book.removeApproval(ekSha256),
        this.#retier(ekSha256, { tier: 'tpm-first-use' }),
        events.append({
          kind: 'tpm-withdrawn',
          message: `the TPM ${ekSha256.slice(0, 16)} is approved no more; a machine that has it is tpm-first-use from now on`,
          data: { ek: ekSha256 },
        }),
      ])
    })
  }

  async forget(mac: Mac, by: string): Promise<void> {
    await this.#inTurn(async () => {
      const { book, events, news, onChange } = this.#options
      const identity = book.of(mac)
      if (identity === undefined) throw unknown(mac)
      const message = `${by} made the server forget its key: it must prove itself anew`
      await Promise.all([
        book.remove(identity.mac),
        events.append({ kind: 'identity-forgotten', mac: identity.mac, message, data: { by } }),
      ])
      news.forget(identity.mac)
      onChange()
    })
  }

  #inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    return this.#options.queue.run('identities', work)
  }

  async #pair(mac: Mac, typed: string, { replace, by }: PairOptions): Promise<Identity> {
    const { attempts, issuer } = this.#options
    const waiting = await this.#waitingFor(mac)
    if (waiting.length === 0) {
      throw new KitError('not-found', `Cannot pair ${mac}: no code of it waits`, {
        fix: 'kateskit identities lists the machines that wait',
      })
    }
    // All are compared, whichever is right.
    const [right] = waiting.filter(({ attempt }) => isPairingCode(typed, attempt.code ?? ''))
    if (right === undefined) return this.#wrongCode(mac, waiting, by)
    const { attempt, found } = right
    this.#requireAgreed(mac, typed, found, replace)
    const decision = decidePaired(found.facts, by)
    if (decision.kind !== 'issue') {
      const reason = decision.kind === 'refused' ? decision.reason : 'it must prove its TPM first'
      throw new KitError('conflict', `Cannot pair ${mac}: ${reason}`, {
        fix: `kateskit config explain ${mac} shows its setting identity`,
      })
    }
    const { identity, step } = await issuer.issue(attempt.claimant, found, decision)
    attempts.forgetWrongCodes(mac)
    attempts.end(attempt, step)
    return identity
  }

  /** The code is right; the person must have meant this machine, and mean to replace what is known of it. */
  #requireAgreed(mac: Mac, typed: string, { subject, known, facts }: Case, replace: boolean): void {
    if (subject !== mac) {
      throw new KitError('conflict', `Cannot pair ${mac}: the machine says that it is ${subject}`, {
        fix: `kateskit pair ${subject} ${typed}`,
      })
    }
    const decision = decideIdentity(facts)
    if (decision.kind !== 'pairing' || !decision.isConflict || replace) return
    throw new KitError('conflict', `Cannot pair ${mac}: it is known by another key (${known?.tier})`, {
      fix: `kateskit pair ${mac} ${typed} --replace, when this is the machine and its key was lost`,
    })
  }

  async #waitingFor(mac: Mac): Promise<{ readonly attempt: OpenAttempt; readonly found: Case }[]> {
    const { attempts, judge } = this.#options
    const waiting = attempts.list().filter(({ state }) => state === 'waiting')
    const all = await Promise.all(
      waiting.map(async (attempt) => ({ attempt, found: await judge.judge(attempt.claimant) })),
    )
    return all.filter(({ attempt, found }) => found.subject === mac || attempt.claimant.mac === mac)
  }

  async #wrongCode(
    mac: Mac,
    waiting: readonly { readonly attempt: OpenAttempt }[],
    by: string,
  ): Promise<never> {
    const { attempts, events } = this.#options
    const left = attempts.countWrongCode(mac)
    const outcome = left > 0 ? `${left} more tries` : 'every attempt is closed, the machine shows a new code'
    if (left === 0) {
      const reason = 'a wrong code was typed three times'
      for (const { attempt } of waiting) attempts.end(attempt, { kind: 'closed', reason })
    }
    await events.append({
      kind: 'pairing-failed',
      mac,
      message: `${by} typed a wrong code: ${outcome}`,
      data: { by, left },
    })
    throw new KitError('wrong-code', `Cannot pair ${mac}: the code is wrong; ${outcome}`)
  }

  /** Throws KitError `not-found`, or `conflict` for several. */
  #ekOf(mac: Mac): string {
    const { book, attempts } = this.#options
    const shown = attempts.list().flatMap((attempt) => {
      const view = viewOf(attempt)
      const isIts = view !== undefined && (view.mac === mac || book.primaryOf(view.mac) === mac)
      return isIts && view.ekSha256 !== undefined ? [view.ekSha256] : []
    })
    const known = book.of(mac)?.ekSha256
    const eks = [...new Set([...(known === undefined ? [] : [known]), ...shown])]
    const [ek, ...others] = eks
    if (ek === undefined) {
      throw new KitError('not-found', `Cannot approve the TPM of ${mac}: it has shown none`, {
        fix: 'kateskit identities lists what machines have shown',
      })
    }
    if (others.length === 0) return ek
    throw new KitError('conflict', `Cannot tell which TPM ${mac} has: ${eks.join(', ')}`, {
      fix: 'kateskit approve <ek-sha256>',
    })
  }

  async #retier(ekSha256: string, change: Partial<Pick<Identity, 'tier' | 'by'>>): Promise<void> {
    const { book } = this.#options
    const identity = book.ofEk(ekSha256)
    if (identity !== undefined) await book.save({ ...identity, ...change })
  }

  /** Those that wait with a code, and need none any more. */
  async #takeInApproved(ekSha256: string): Promise<void> {
    const { attempts, judge, issuer } = this.#options
    for (const attempt of attempts.list()) {
      const { claimant, state } = attempt
      if (state === 'over' || claimant.tpm?.isProved !== true || claimant.tpm.claim.ekSha256 !== ekSha256)
        continue
      const found = await judge.judge(claimant)
      const decision = decideIdentity(found.facts)
      if (decision.kind !== 'issue') continue
      attempts.end(attempt, (await issuer.issue(claimant, found, decision)).step)
    }
  }
}

/** Undefined for one that is over. */
export function viewOf({ id, claimant, state, isConflict, sinceMs }: OpenAttempt): Attempt | undefined {
  if (state === 'over') return undefined
  const { mac, address, request, tpm } = claimant
  return {
    ...{ id, mac, state, isConflict, sinceMs, keySha256: request.keySha256 },
    ...(address !== undefined && { address }),
    ...(tpm?.isProved === true && { ekSha256: tpm.claim.ekSha256 }),
  }
}

function unknown(mac: Mac): KitError {
  return new KitError('not-found', `Cannot forget ${mac}: it has no identity`, {
    fix: 'kateskit identities lists those there are',
  })
}
