// What becomes of a machine that says who it is: docs/security.md, "How a machine proves who it is", as one pure function.

import type { IdentityRule, Tier } from './identity.ts'

/** Whose a key is, by what the server knows. */
export type Owner = 'nobody' | 'this machine' | 'another'

export interface IdentityFacts {
  /** Undefined while its files are in error: nobody new is taken in by half a profile. */
  readonly rule: IdentityRule | undefined
  /** The machine has an identity already, itself or as the alias of another MAC. */
  readonly known?: { readonly tier: Tier; readonly by: string }
  /** Whose the key of the request is. */
  readonly key: Owner
  /** `claimed`: it says that its key lies in a TPM, and has not shown it yet. */
  readonly tpm: 'none' | 'claimed' | 'proved'
  /** Whose the endorsement key is. Counts once it is proved. */
  readonly ek: Owner
  /** Who vouches for that endorsement key, or for the one that the known key came with. */
  readonly approvedBy?: string
}

export type IdentityDecision =
  | { readonly kind: 'issue'; readonly tier: Tier; readonly by: string }
  | { readonly kind: 'challenge' }
  | { readonly kind: 'pairing'; readonly isConflict: boolean }
  | {
      readonly kind: 'refused'
      /** One line, safe to show on its console. */
      readonly reason: string
      /** Another key than the known one, or one of another machine. */
      readonly isConflict: boolean
      /** It would be taken in if a person approved its TPM. */
      readonly needsApproval: boolean
    }

export function decideIdentity(facts: IdentityFacts): IdentityDecision {
  const { known, key, tpm, ek, approvedBy, rule } = facts
  if (key === 'another') return refuse('its key is known as that of another machine', { isConflict: true })
  if (key === 'this machine' && known !== undefined) return again(known, known.tier, approvedBy)
  if (tpm === 'claimed') return { kind: 'challenge' }
  if (tpm === 'proved' && ek === 'another') {
    return refuse('its TPM is known as that of another machine', { isConflict: true })
  }
  if (tpm === 'proved' && ek === 'this machine' && known !== undefined) {
    return again(known, 'tpm-first-use', approvedBy)
  }
  const isConflict = known !== undefined
  const refusal = findRefusal(facts)
  if (refusal !== undefined) {
    const needsApproval = rule === 'tpm-approved' && tpm === 'proved' && !isConflict
    return refuse(refusal, { isConflict, needsApproval })
  }
  if (isConflict) return { kind: 'pairing', isConflict }
  if (tpm === 'proved' && approvedBy !== undefined)
    return { kind: 'issue', tier: 'tpm-approved', by: approvedBy }
  if (rule === 'paired') return { kind: 'pairing', isConflict }
  return { kind: 'issue', tier: tpm === 'proved' ? 'tpm-first-use' : 'mac-only', by: 'first use' }
}

/** Whether what a machine has shown once still does, now that its files may ask for more. */
export function isEnough(tier: Tier, rule: IdentityRule): boolean {
  switch (rule) {
    case 'mac-only':
      return true
    case 'paired':
      return tier !== 'mac-only'
    case 'tpm-first-use':
      return tier === 'tpm-first-use' || tier === 'tpm-approved'
    case 'tpm-approved':
      return tier === 'tpm-approved'
    default:
      return rule satisfies never
  }
}

/** A person has compared the code. Undefined when no code helps: `decideIdentity` says what does. */
export function decidePaired(facts: IdentityFacts, by: string): IdentityDecision {
  const decision = decideIdentity(facts)
  if (decision.kind !== 'pairing') return decision
  const { tpm, approvedBy } = facts
  if (tpm !== 'proved') return { kind: 'issue', tier: 'paired', by }
  return { kind: 'issue', tier: approvedBy === undefined ? 'tpm-first-use' : 'tpm-approved', by }
}

/** What the machine was taken in by stays, unless it is vouched for meanwhile. */
function again(
  known: { readonly by: string },
  tier: Tier,
  approvedBy: string | undefined,
): Extract<IdentityDecision, { kind: 'issue' }> {
  if (approvedBy !== undefined) return { kind: 'issue', tier: 'tpm-approved', by: approvedBy }
  return { kind: 'issue', tier, by: known.by }
}

/** What the rule does not let in whoever says yes to it. */
function findRefusal({ rule, tpm, approvedBy }: IdentityFacts): string | undefined {
  if (rule === undefined) return 'its files on the server are in error'
  if (rule === 'tpm-approved' && tpm === 'none')
    return 'its identity must be tpm-approved, and it shows no TPM'
  if (rule === 'tpm-approved' && approvedBy === undefined) return 'nobody has approved its TPM'
  if (rule === 'tpm-first-use' && tpm === 'none')
    return 'its identity must be tpm-first-use, and it shows no TPM'
  return undefined
}

function refuse(
  reason: string,
  { isConflict, needsApproval = false }: { isConflict: boolean; needsApproval?: boolean },
): Extract<IdentityDecision, { kind: 'refused' }> {
  return { kind: 'refused', reason, isConflict, needsApproval }
}
