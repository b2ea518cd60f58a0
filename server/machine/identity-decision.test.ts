// Every combination of docs/security.md, "How a machine proves who it is".

import test from 'ava'
import fc from 'fast-check'

import { IDENTITY_RULES, type IdentityRule } from './identity.ts'
import {
  decideIdentity,
  decidePaired,
  type IdentityDecision,
  type IdentityFacts,
} from './identity-decision.ts'

/** `paired` and so on: issued as that tier. `conflict`: a code and --replace. `refused!`: with the event of a conflict. */
function inWords(decision: IdentityDecision): string {
  switch (decision.kind) {
    case 'issue':
      return decision.tier
    case 'pairing':
      return decision.isConflict ? 'conflict' : 'code'
    case 'challenge':
      return 'challenge'
    case 'refused':
      return `refused${decision.isConflict ? '!' : ''}${decision.needsApproval ? ' until approved' : ''}`
    default:
      return decision satisfies never
  }
}

const NEW: Omit<IdentityFacts, 'rule'> = { key: 'nobody', tpm: 'none', ek: 'nobody' }
const OTHER_TPM = { ...NEW, tpm: 'proved' } as const
const APPROVED = { ...OTHER_TPM, approvedBy: 'ek-list' } as const

/** The table: a machine whose TPM is approved, another TPM, no TPM. */
const TABLE: Readonly<Record<IdentityRule, readonly [string, string, string]>> = {
  paired: ['tpm-approved', 'code', 'code'],
  'tpm-approved': ['tpm-approved', 'refused until approved', 'refused'],
  'tpm-first-use': ['tpm-approved', 'tpm-first-use', 'refused'],
  'mac-only': ['tpm-approved', 'tpm-first-use', 'mac-only'],
}

test('decideIdentity() takes a new machine in by the table of docs/security.md', (t) => {
  for (const rule of IDENTITY_RULES) {
    const words = [APPROVED, OTHER_TPM, NEW].map((facts) => inWords(decideIdentity({ ...facts, rule })))
    t.deepEqual(words, [...TABLE[rule]], rule)
  }
})

test('decidePaired() makes of a code what the machine has shown', (t) => {
  const paired = (facts: Omit<IdentityFacts, 'rule'>) =>
    decidePaired({ ...facts, rule: 'paired' }, 'token lab')
  t.deepEqual(paired(NEW), { kind: 'issue', tier: 'paired', by: 'token lab' })
  t.deepEqual(paired(OTHER_TPM), { kind: 'issue', tier: 'tpm-first-use', by: 'token lab' })
  t.is(inWords(paired({ ...NEW, known: KNOWN })), 'paired', 'replaced')
  t.is(inWords(decidePaired({ ...NEW, rule: 'tpm-approved' }, 'x')), 'refused', 'a code does not help')
})

const KNOWN = { tier: 'paired', by: 'token lab' } as const

test('decideIdentity() gives a known machine its certificate at once, whatever the rule', (t) => {
  for (const rule of [...IDENTITY_RULES, undefined]) {
    const own = { ...NEW, rule, known: KNOWN, key: 'this machine' } as const
    t.deepEqual(decideIdentity(own), { kind: 'issue', ...KNOWN }, rule)
    t.is(inWords(decideIdentity({ ...own, tpm: 'claimed' })), 'paired', 'nothing to prove')
    t.is(inWords(decideIdentity({ ...own, approvedBy: 'ek-list' })), 'tpm-approved', 'approved meanwhile')
    const newKey = {
      ...OTHER_TPM,
      rule,
      known: { tier: 'tpm-approved', by: 'x' },
      ek: 'this machine',
    } as const
    t.is(inWords(decideIdentity(newKey)), 'tpm-first-use', 'another key in the known TPM, approved no more')
    t.is(inWords(decideIdentity({ ...newKey, approvedBy: 'ek-list' })), 'tpm-approved')
  }
})

/** Never at once, and no code where the rule asks for more than a person can see. */
const CONFLICTS: Readonly<Record<IdentityRule, readonly [string, string, string]>> = {
  paired: ['conflict', 'conflict', 'conflict'],
  'tpm-approved': ['conflict', 'refused!', 'refused!'],
  'tpm-first-use': ['conflict', 'conflict', 'refused!'],
  'mac-only': ['conflict', 'conflict', 'conflict'],
}

test('decideIdentity() sets a known machine with another key aside, whatever the rule', (t) => {
  for (const rule of IDENTITY_RULES) {
    const words = [APPROVED, OTHER_TPM, NEW].map((facts) =>
      inWords(decideIdentity({ ...facts, rule, known: KNOWN })),
    )
    t.deepEqual(words, [...CONFLICTS[rule]], rule)
  }
})

test('decideIdentity() refuses a known key, or TPM, on another machine', (t) => {
  for (const rule of IDENTITY_RULES) {
    for (const facts of [APPROVED, OTHER_TPM, NEW]) {
      for (const known of [{}, { known: KNOWN }]) {
        t.is(inWords(decideIdentity({ ...facts, ...known, rule, key: 'another' })), 'refused!')
        if (facts.tpm === 'none') continue
        t.is(inWords(decideIdentity({ ...facts, ...known, rule, ek: 'another' })), 'refused!')
      }
    }
  }
})

test('decideIdentity() believes no TPM before it is proved, and no half profile', (t) => {
  for (const rule of IDENTITY_RULES) {
    t.is(inWords(decideIdentity({ ...APPROVED, rule, tpm: 'claimed' })), 'challenge')
    t.is(
      inWords(decideIdentity({ ...NEW, rule, tpm: 'claimed', ek: 'this machine', known: KNOWN })),
      'challenge',
    )
  }
  t.is(inWords(decideIdentity({ ...APPROVED, rule: undefined })), 'refused')
  t.is(inWords(decideIdentity({ ...NEW, rule: undefined, known: KNOWN })), 'refused!')
})

const owner = fc.constantFrom('nobody', 'this machine', 'another')

test('decideIdentity() issues to nobody without one of: the known key, a proved TPM, the rule mac-only', (t) => {
  const facts = fc.record(
    {
      rule: fc.constantFrom(...IDENTITY_RULES, undefined),
      known: fc.constant(KNOWN),
      ...{ key: owner, tpm: fc.constantFrom('none', 'claimed', 'proved'), ek: owner },
      approvedBy: fc.constant('ek-list'),
    },
    { requiredKeys: ['rule', 'key', 'tpm', 'ek'] },
  )
  t.notThrows(() =>
    fc.assert(
      fc.property(facts, (each) => {
        const found = each as IdentityFacts
        if (decideIdentity(found).kind !== 'issue') return true
        if (found.key === 'another') return false
        if (found.known !== undefined && found.key !== 'this machine') return found.ek === 'this machine'
        return found.key === 'this machine' || found.tpm === 'proved' || found.rule === 'mac-only'
      }),
      { numRuns: 2_000 },
    ),
  )
})
