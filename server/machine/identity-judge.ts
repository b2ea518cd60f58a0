// Which machine somebody says it is, and what the server knows for and against it.

import type { Mac } from '#lib/mac.ts'

import type { Identity, IdentityRule, Tier } from './identity.ts'
import type { Claimant } from './identity-attempts.ts'
import type { IdentityBook } from './identity-book.ts'
import { type IdentityFacts, isEnough, type Owner } from './identity-decision.ts'
import type { Profiles } from './ports.ts'

export interface JudgeOptions {
  readonly book: IdentityBook
  readonly profiles: Pick<Profiles, 'profileFor' | 'machines'>
}

export interface Case {
  /** The machine that it would be. */
  readonly subject: Mac
  /**
   * The identity that machine has already, its own or as an alias of another. It is no fact when its files ask for more by
   * now. Another key than that of one that was never kept is no conflict: a live machine that starts anew, or an install
   * that was cut, has nothing else to show.
   */
  readonly known: Identity | undefined
  readonly facts: IdentityFacts
}

export class IdentityJudge {
  readonly #options: JudgeOptions

  constructor(options: JudgeOptions) {
    this.#options = options
  }

  async judge(claimant: Claimant): Promise<Case> {
    const { book } = this.#options
    const { request, tpm } = claimant
    const ofKey = book.ofKey(request.keySha256)
    const ekSha256 = tpm?.isProved === true ? tpm.claim.ekSha256 : undefined
    const ofEk = ekSha256 === undefined ? undefined : book.ofEk(ekSha256)
    const key = ownerOf(ofKey, claimant)
    const ek = ownerOf(ofEk, claimant)
    const own = [key === 'this machine' && ofKey, ek === 'this machine' && ofEk].find((each) => each)
    const subject = own ? own.mac : this.#subjectOf(claimant)
    const known = own || book.of(subject)
    const vouchedFor = ekSha256 ?? (key === 'this machine' ? ofKey?.ekSha256 : undefined)
    const approvedBy = await this.#approvedBy(vouchedFor, claimant)
    const rule = this.ruleOf(subject)
    const counts = own
      ? approvedBy !== undefined || this.isEnough(own)
      : known !== undefined && isLasting(known)
    return {
      subject,
      known,
      facts: {
        rule,
        ...(known !== undefined && counts && { known }),
        ...{ key, ek, tpm: tpm === undefined ? 'none' : tpm.isProved ? 'proved' : 'claimed' },
        ...(approvedBy !== undefined && { approvedBy }),
      },
    }
  }

  /** What it has shown is what its files ask for; as it was while they are in error. */
  isEnough({ mac, tier }: Identity): boolean {
    const rule = this.ruleOf(mac)
    return rule === undefined || isEnough(tier, rule)
  }

  /** Undefined while the machine's files are in error. */
  ruleOf(mac: Mac): IdentityRule | undefined {
    const profile = this.#options.profiles.profileFor(mac)
    if (profile.broken !== undefined) return undefined
    return profile.settings.get('identity')?.value as IdentityRule | undefined // checked by its table
  }

  /**
   * Its MACs that are no machines of their own. What only its MAC speaks for takes none of those that more is asked of: it
   * would keep them from ever proving themselves.
   */
  aliasesOf(subject: Mac, macs: readonly Mac[], tier: Tier): readonly Mac[] {
    const { book, profiles } = this.#options
    const withFolder = new Set(profiles.machines())
    return macs.filter((mac) => {
      if (mac === subject || withFolder.has(mac)) return false
      const known = book.of(mac)
      if (known !== undefined) return known.mac === subject
      return tier !== 'mac-only' || this.ruleOf(mac) === 'mac-only'
    })
  }

  /** The MAC with a folder, else the one that is known already, else the one it uses now. */
  #subjectOf({ mac, macs }: Claimant): Mac {
    const { book, profiles } = this.#options
    const withFolder = new Set(profiles.machines())
    const others = macs.filter((each) => each !== mac).sort()
    const all = macs.includes(mac) ? [mac, ...others] : others
    const known = all
      .map((each) => book.of(each))
      .find((each) => each !== undefined && macs.includes(each.mac))
    return all.find((each) => withFolder.has(each)) ?? known?.mac ?? all[0] ?? mac
  }

  async #approvedBy(ekSha256: string | undefined, { tpm }: Claimant): Promise<string | undefined> {
    if (ekSha256 === undefined) return undefined
    const approval = this.#options.book.approvalOf(ekSha256)
    if (approval !== undefined) return approval.by
    return tpm?.isProved === true ? tpm.claim.vouchedBy() : undefined
  }
}

/** It still has its key after a restart, or its TPM to show. */
function isLasting({ isKept, ekSha256 }: Identity): boolean {
  return isKept === true || ekSha256 !== undefined
}

/** A machine is its owner when it says so by any MAC that the owner is known by. */
function ownerOf(owner: Identity | undefined, { macs }: Claimant): Owner {
  if (owner === undefined) return 'nobody'
  return owner.macs.some((mac) => macs.includes(mac)) ? 'this machine' : 'another'
}
