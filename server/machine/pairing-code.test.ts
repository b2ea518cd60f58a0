import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'

import test from 'ava'

import { isPairingCode, keepsCommitment, type PairingFacts, pairingCode } from './pairing-code.ts'

// Made by printf and sha256sum from docs/security.md; boot/node's tests read the same file.
const VECTORS: readonly (PairingFacts & { readonly code: string })[] = JSON.parse(
  readFileSync(new URL('testdata/pairing-code.json', import.meta.url), 'utf8'),
)

test('pairingCode() is the code of docs/security.md, and another with each thing it is made of', (t) => {
  for (const { code, ...facts } of VECTORS) t.is(pairingCode(facts), code)
  const [first, second] = VECTORS
  if (first === undefined || second === undefined) return t.fail()
  for (const key of ['mac', 'keySha256', 'caFingerprint', 'machineNonce', 'serverNonce'] as const) {
    t.not(pairingCode({ ...first, [key]: second[key] }), first.code, key)
  }
})

test('isPairingCode() reads what people type', (t) => {
  for (const typed of ['K1M-20X', 'k1m20x', ' KIM 2OX ', 'kl-m2-ox', 'K1M–20X'.replace('–', '-')]) {
    t.true(isPairingCode(typed, 'K1M-20X'), typed)
  }
  for (const typed of ['', 'K1M-20', 'K1M-20XX', 'K1M-20Y', 'K1M-2UX', 'x'.repeat(10_000)]) {
    t.false(isPairingCode(typed, 'K1M-20X'), typed)
  }
})

test('keepsCommitment() is true for the one nonce that the machine had chosen', (t) => {
  const nonce = 'ab'.repeat(16)
  const commitment = createHash('sha256').update(nonce).digest('hex')
  t.true(keepsCommitment(commitment, nonce))
  t.false(keepsCommitment(commitment, 'cd'.repeat(16)))
})
