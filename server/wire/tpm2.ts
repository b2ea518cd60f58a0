// Public areas of RSA keys in a TPM 2.0 (TPM 2.0 Library, part 2 "Structures"): TPM2B_PUBLIC to values and back.

import { createHash } from 'node:crypto'

import { ByteReader, DecodeError, uint16Bytes, uint32Bytes } from '#lib/bytes.ts'

/** TPM_ALG_ID (part 2 §6.3), as far as it can stand in an RSA key's public area. */
export const TPM_ALGORITHM = {
  rsa: 0x0001,
  aes: 0x0006,
  sha256: 0x000b,
  null: 0x0010,
  rsassa: 0x0014,
  rsaes: 0x0015,
  rsapss: 0x0016,
  oaep: 0x0017,
  cfb: 0x0043,
} as const

/** TPMA_OBJECT (part 2 §8.3). */
export const TPM_ATTRIBUTE = {
  fixedTpm: 0x0000_0002,
  fixedParent: 0x0000_0010,
  sensitiveDataOrigin: 0x0000_0020,
  userWithAuth: 0x0000_0040,
  adminWithPolicy: 0x0000_0080,
  restricted: 0x0001_0000,
  decrypt: 0x0002_0000,
  sign: 0x0004_0000,
} as const

/** What the children of a storage key are encrypted by. */
export interface TpmSymmetric {
  readonly algorithm: number
  readonly keyBits: number
  readonly mode: number
}

/** What a key is tied to: TPM_ALG_RSASSA and the like, and its hash where it has one. */
export interface TpmRsaScheme {
  readonly scheme: number
  readonly hash?: number
}

/** TPMT_PUBLIC of an RSA key whose name is made with SHA-256. */
export interface TpmRsaPublic {
  /** A sum of TPM_ATTRIBUTE. */
  readonly attributes: number
  /** A policy's digest; empty for none. */
  readonly authPolicy: Uint8Array
  readonly symmetric?: TpmSymmetric
  readonly scheme?: TpmRsaScheme
  readonly keyBits: number
  /** 0 stands for 65537 (part 2 §12.2.3.5). */
  readonly exponent: number
  /** Big-endian, `keyBits` long. */
  readonly modulus: Uint8Array
}

/** The longest in part 2 that any TPM makes; and no TPM makes shorter ones any more. */
const KEY_BITS = [1024, 2048, 3072, 4096] as const

/** Schemes that name a hash; TPM_ALG_RSAES has no details (part 2 §11.2.4). */
const SCHEMES_WITH_HASH: readonly number[] = [TPM_ALGORITHM.rsassa, TPM_ALGORITHM.rsapss, TPM_ALGORITHM.oaep]

/** PolicyA of the TCG EK Credential Profile (Level 0, version 2.5, B.6.2): the secret of the endorsement hierarchy is shown. */
const EK_POLICY = Buffer.from('837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa', 'hex')

const EK_KEY_BITS = 2048

/** From a whole TPM2B_PUBLIC; nothing may follow it. Throws DecodeError. The values share the input's memory. */
export function decodeTpmPublic(bytes: Uint8Array): TpmRsaPublic {
  const reader = new ByteReader(bytes)
  const area = new ByteReader(takeSized(reader, 'public area'))
  refuseRest(reader, 'public area')
  expect(area.uint16('type'), TPM_ALGORITHM.rsa, 'type')
  expect(area.uint16('nameAlg'), TPM_ALGORITHM.sha256, 'nameAlg')
  const attributes = area.uint32('objectAttributes')
  const authPolicy = takeSized(area, 'authPolicy')
  // A TPM takes an empty policy, or a digest by nameAlg (part 1 §19.7).
  if (authPolicy.length !== 0 && authPolicy.length !== 32) {
    throw new DecodeError(`authPolicy: ${authPolicy.length} bytes instead of none or 32`)
  }
  const symmetric = decodeSymmetric(area)
  const scheme = decodeScheme(area)
  const keyBits = area.uint16('keyBits')
  if (!KEY_BITS.some((bits) => bits === keyBits)) throw new DecodeError(`keyBits: ${keyBits}`)
  const exponent = area.uint32('exponent')
  // Even numbers are no RSA exponents and no RSA moduli, and OpenSSL cannot reckon with them.
  if (exponent !== 0 && (exponent < 3 || exponent % 2 === 0)) throw new DecodeError(`exponent: ${exponent}`)
  const modulus = takeSized(area, 'modulus')
  if (modulus.length !== keyBits / 8) {
    throw new DecodeError(`modulus: ${modulus.length} bytes for ${keyBits} bits`)
  }
  if ((modulus[0] ?? 0) < 0x80 || (modulus.at(-1) ?? 0) % 2 === 0) {
    throw new DecodeError(`modulus: not an odd number of ${keyBits} bits`)
  }
  refuseRest(area, 'modulus')
  return {
    ...{ attributes, authPolicy, keyBits, exponent, modulus },
    ...(symmetric === undefined ? {} : { symmetric }),
    ...(scheme === undefined ? {} : { scheme }),
  }
}

/** As TPM2B_PUBLIC. */
export function encodeTpmPublic(key: TpmRsaPublic): Uint8Array {
  return sized(encodeArea(key))
}

/** What a key is called by in every proof (part 1 §16): its hash algorithm, and the hash of its public area. */
export function tpmNameOf(key: TpmRsaPublic): Uint8Array {
  const digest = createHash('sha256').update(encodeArea(key)).digest()
  return Buffer.concat([uint16Bytes(TPM_ALGORITHM.sha256), digest])
}

/** The endorsement key that every TPM with that modulus makes of the default template (EK Credential Profile, B.3.3: Template L-1). */
export function endorsementKeyOf(modulus: Uint8Array): TpmRsaPublic {
  const { fixedTpm, fixedParent, sensitiveDataOrigin, adminWithPolicy, restricted, decrypt } = TPM_ATTRIBUTE
  return {
    attributes: fixedTpm | fixedParent | sensitiveDataOrigin | adminWithPolicy | restricted | decrypt,
    authPolicy: EK_POLICY,
    symmetric: { algorithm: TPM_ALGORITHM.aes, keyBits: 128, mode: TPM_ALGORITHM.cfb },
    keyBits: EK_KEY_BITS,
    exponent: 0,
    modulus,
  }
}

/** TPMT_SYM_DEF_OBJECT (part 2 §11.1.7). */
function decodeSymmetric(area: ByteReader): TpmSymmetric | undefined {
  const algorithm = area.uint16('symmetric')
  if (algorithm === TPM_ALGORITHM.null) return undefined
  expect(algorithm, TPM_ALGORITHM.aes, 'symmetric')
  return { algorithm, keyBits: area.uint16('symmetric keyBits'), mode: area.uint16('symmetric mode') }
}

/** TPMT_RSA_SCHEME (part 2 §11.2.4.2). */
function decodeScheme(area: ByteReader): TpmRsaScheme | undefined {
  const scheme = area.uint16('scheme')
  if (scheme === TPM_ALGORITHM.null) return undefined
  if (scheme === TPM_ALGORITHM.rsaes) return { scheme }
  if (!SCHEMES_WITH_HASH.includes(scheme)) throw new DecodeError(`scheme: ${hex16(scheme)}`)
  return { scheme, hash: area.uint16('scheme hash') }
}

function encodeArea(key: TpmRsaPublic): Uint8Array {
  const { symmetric, scheme } = key
  return Buffer.concat([
    ...[uint16Bytes(TPM_ALGORITHM.rsa), uint16Bytes(TPM_ALGORITHM.sha256), uint32Bytes(key.attributes)],
    sized(key.authPolicy),
    ...words(symmetric ? [symmetric.algorithm, symmetric.keyBits, symmetric.mode] : [TPM_ALGORITHM.null]),
    ...words(
      scheme ? [scheme.scheme, ...(scheme.hash === undefined ? [] : [scheme.hash])] : [TPM_ALGORITHM.null],
    ),
    ...[uint16Bytes(key.keyBits), uint32Bytes(key.exponent), sized(key.modulus)],
  ])
}

function words(values: readonly number[]): readonly Uint8Array[] {
  return values.map(uint16Bytes)
}

/** A TPM2B: two bytes of length, then so many bytes. */
export function sized(bytes: Uint8Array): Uint8Array {
  return Buffer.concat([uint16Bytes(bytes.length), bytes])
}

/** Throws DecodeError. */
export function takeSized(reader: ByteReader, what: string): Uint8Array {
  return reader.take(reader.uint16(`${what} size`), what)
}

/** Throws DecodeError. */
export function refuseRest(reader: ByteReader, what: string): void {
  if (reader.remaining > 0) throw new DecodeError(`${reader.remaining} bytes behind the ${what}`)
}

function expect(value: number, expected: number, what: string): void {
  if (value !== expected) throw new DecodeError(`${what}: ${hex16(value)} instead of ${hex16(expected)}`)
}

function hex16(value: number): string {
  return `0x${value.toString(16).padStart(4, '0')}`
}
