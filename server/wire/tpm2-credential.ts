// TPM2_MakeCredential without a TPM (TPM 2.0 Library, part 1 §24 "Credential Protection"), and the file of tpm2-tools.

import {
  constants,
  createCipheriv,
  createHmac,
  createPublicKey,
  publicEncrypt,
  randomBytes,
} from 'node:crypto'

import { ByteReader, DecodeError, uint32Bytes } from '#lib/bytes.ts'

import { refuseRest, sized, type TpmRsaPublic, takeSized } from './tpm2.ts'

export interface TpmCredential {
  /** The content of TPM2B_ID_OBJECT: the integrity's digest, with its size, and the encrypted secret. */
  readonly idObject: Uint8Array
  /** The content of TPM2B_ENCRYPTED_SECRET: the seed of both keys, encrypted to the endorsement key. */
  readonly encryptedSeed: Uint8Array
}

/** As long as the digest of the endorsement key's nameAlg, which is also the most a secret can be (part 3, TPM2_MakeCredential). */
export const TPM_SECRET_BYTES = 32

const RSA_EXPONENT = 65_537

/**
 * Only the TPM that has `ek`, and has the object called `name` loaded, gets the secret out (TPM2_ActivateCredential).
 * `ek` must be of the default template: SHA-256 and AES-128 in CFB mode are taken from there.
 */
export function makeTpmCredential(ek: TpmRsaPublic, name: Uint8Array, secret: Uint8Array): TpmCredential {
  if (secret.length > TPM_SECRET_BYTES) throw new RangeError(`Cannot hide a secret of ${secret.length} bytes`)
  const seed = randomBytes(TPM_SECRET_BYTES)
  const { encryption, integrity } = credentialKeys(seed, name)
  const cipher = createCipheriv('aes-128-cfb', encryption, Buffer.alloc(16)) // a fresh key each time: part 1 §24.4
  const encrypted = Buffer.concat([cipher.update(sized(secret)), cipher.final()])
  const digest = createHmac('sha256', integrity).update(encrypted).update(name).digest()
  return {
    idObject: Buffer.concat([sized(digest), encrypted]),
    // Part 1, B.10.4: the label of OAEP ends with a zero byte. MGF1 is by the same hash, which is OpenSSL's default too.
    encryptedSeed: publicEncrypt(
      {
        key: rsaKeyOf(ek),
        padding: constants.RSA_PKCS1_OAEP_PADDING,
        oaepHash: 'sha256',
        oaepLabel: Buffer.from('IDENTITY\0'),
      },
      seed,
    ),
  }
}

/** Of the secret, and of the proof that nobody changed it; both ends make them out of the seed (part 1 §24.4, §24.5). */
export function credentialKeys(
  seed: Uint8Array,
  name: Uint8Array,
): { encryption: Uint8Array; integrity: Uint8Array } {
  return {
    encryption: deriveTpmKey(seed, { label: 'STORAGE', context: name, bits: 128 }),
    integrity: deriveTpmKey(seed, { label: 'INTEGRITY', context: new Uint8Array(), bits: 256 }),
  }
}

/** KDFa with SHA-256 for one round (part 1 §11.4.10.2): at most 256 bits. */
function deriveTpmKey(
  key: Uint8Array,
  {
    label,
    context,
    bits,
  }: { readonly label: string; readonly context: Uint8Array; readonly bits: 128 | 256 },
): Uint8Array {
  return createHmac('sha256', key)
    .update(uint32Bytes(1))
    .update(`${label}\0`)
    .update(context)
    .update(uint32Bytes(bits))
    .digest()
    .subarray(0, bits / 8)
}

export function rsaKeyOf({ modulus, exponent }: TpmRsaPublic) {
  const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64url')
  const jwk = { kty: 'RSA', n: base64(modulus), e: base64(uint32Bytes(exponent || RSA_EXPONENT)) }
  return createPublicKey({ key: jwk, format: 'jwk' })
}

/** tpm2-tools 4 and later, lib/files.c: a header, then both TPM2Bs. */
const FILE_MAGIC = 0xbadc_c0de
const FILE_VERSION = 1

/** What `tpm2_activatecredential -i` takes. */
export function encodeCredentialFile({ idObject, encryptedSeed }: TpmCredential): Uint8Array {
  const header = [uint32Bytes(FILE_MAGIC), uint32Bytes(FILE_VERSION)]
  return Buffer.concat([...header, sized(idObject), sized(encryptedSeed)])
}

/** Throws DecodeError. */
export function decodeCredentialFile(file: Uint8Array): TpmCredential {
  const reader = new ByteReader(file)
  const magic = reader.uint32('magic')
  const version = reader.uint32('version')
  if (magic !== FILE_MAGIC || version !== FILE_VERSION) {
    throw new DecodeError(`no credential file of version ${FILE_VERSION}`)
  }
  const idObject = takeSized(reader, 'id object')
  const encryptedSeed = takeSized(reader, 'encrypted seed')
  refuseRest(reader, 'encrypted seed')
  return { idObject, encryptedSeed }
}
