// The code on a machine's console, by which a person sees that machine and server speak of the same two keys.
// docs/security.md, "The code". Pure.

import { createHash, timingSafeEqual } from 'node:crypto'

import { type Mac, macToPath } from '#lib/mac.ts'

export interface PairingFacts {
  readonly mac: Mac
  /** sha256 of the machine's public key (SubjectPublicKeyInfo, DER), hex. */
  readonly keySha256: string
  /** sha256 of the CA's certificate (DER), hex. */
  readonly caFingerprint: string
  /** 32 hex digits each. */
  readonly machineNonce: string
  readonly serverNonce: string
}

/** Crockford's base 32: no I, L, O, U. */
const ALPHABET = '0123456789ABCDEFGHJKMNPQRSTVWXYZ'
const CODE_LENGTH = 6
/** What people take for each other in writing. */
const READ_AS: Readonly<Record<string, string>> = { O: '0', I: '1', L: '1' }

/** `K7M-2QX` */
export function pairingCode(facts: PairingFacts): string {
  const { mac, keySha256, caFingerprint, machineNonce, serverNonce } = facts
  const lines = [
    'kateskit-pairing 1',
    macToPath(mac),
    ...[keySha256, caFingerprint, machineNonce, serverNonce],
  ]
  const digest = createHash('sha256').update(lines.map((line) => `${line}\n`).join(''))
  const bytes = digest.digest().subarray(0, CODE_LENGTH)
  const code = [...bytes].map((byte) => ALPHABET[byte % ALPHABET.length]).join('')
  return `${code.slice(0, 3)}-${code.slice(3)}`
}

/** Whether what a person typed is the code; it takes the same time either way. */
export function isPairingCode(typed: string, code: string): boolean {
  return timingSafeEqual(digestOf(typed), digestOf(code))
}

/** Of equal length whatever was typed. */
function digestOf(text: string): Buffer {
  const plain = text.toUpperCase().replace(/[\s-]/g, '')
  const read = plain.replace(/[OIL]/g, (letter) => READ_AS[letter] ?? letter)
  return createHash('sha256').update(read).digest()
}

/** Whether the machine had bound itself to this nonce before it saw ours. */
export function keepsCommitment(commitment: string, nonce: string): boolean {
  const expected = createHash('sha256').update(nonce).digest()
  return timingSafeEqual(expected, Buffer.from(commitment, 'hex'))
}
