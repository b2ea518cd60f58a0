// A TPM's side of a credential without a TPM: keys in memory, for tests that need no real one.

import {
  constants,
  createDecipheriv,
  createHmac,
  generateKeyPairSync,
  type KeyObject,
  privateDecrypt,
  timingSafeEqual,
} from 'node:crypto'

import { ByteReader } from '#lib/bytes.ts'
import {
  encodeTpmPublic,
  endorsementKeyOf,
  refuseRest,
  TPM_ATTRIBUTE,
  type TpmRsaPublic,
  takeSized,
  tpmNameOf,
} from '#wire/tpm2.ts'
import { credentialKeys, decodeCredentialFile } from '#wire/tpm2-credential.ts'

/** The attributes that docs/security.md asks of a machine's key. */
export const MACHINE_KEY_ATTRIBUTES =
  TPM_ATTRIBUTE.fixedTpm |
  TPM_ATTRIBUTE.fixedParent |
  TPM_ATTRIBUTE.sensitiveDataOrigin |
  TPM_ATTRIBUTE.userWithAuth |
  TPM_ATTRIBUTE.sign

export interface SoftTpm {
  /** TPM2B_PUBLIC of its endorsement key. */
  readonly ek: Uint8Array
  readonly ekKey: KeyObject
  /** TPM2B_PUBLIC of an RSA key that it claims to hold. */
  publicOf(key: KeyObject, attributes?: number): Uint8Array
  /** TPM2_ActivateCredential: the secret in the credential file. Throws when it is for another TPM or another key. */
  activate(file: Uint8Array, key: KeyObject, attributes?: number): Uint8Array
}

export function makeSoftTpm(): SoftTpm {
  const pair = generateKeyPairSync('rsa', { modulusLength: 2048 })
  return {
    ek: encodeTpmPublic(endorsementKeyOf(modulusOf(pair.publicKey))),
    ekKey: pair.publicKey,
    publicOf: (key, attributes) => encodeTpmPublic(signingKey(key, attributes)),
    activate: (file, key, attributes) =>
      openCredential(file, pair.privateKey, tpmNameOf(signingKey(key, attributes))),
  }
}

/** `key` may be private: its public half counts. */
export function signingKey(key: KeyObject, attributes = MACHINE_KEY_ATTRIBUTES): TpmRsaPublic {
  const modulus = modulusOf(key)
  return { attributes, authPolicy: new Uint8Array(), keyBits: modulus.length * 8, exponent: 0, modulus }
}

function modulusOf(key: KeyObject): Uint8Array {
  return Buffer.from(key.export({ format: 'jwk' }).n ?? '', 'base64url')
}

function openCredential(file: Uint8Array, ekPrivate: KeyObject, name: Uint8Array): Uint8Array {
  const { idObject, encryptedSeed } = decodeCredentialFile(file)
  const oaep = { padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha256' }
  const seed = privateDecrypt(
    { key: ekPrivate, ...oaep, oaepLabel: Buffer.from('IDENTITY\0') },
    encryptedSeed,
  )
  const { encryption, integrity } = credentialKeys(seed, name)
  const reader = new ByteReader(idObject)
  const digest = takeSized(reader, 'integrity')
  const encrypted = reader.rest()
  if (!timingSafeEqual(digest, createHmac('sha256', integrity).update(encrypted).update(name).digest())) {
    throw new Error('the credential is for another key')
  }
  const decipher = createDecipheriv('aes-128-cfb', encryption, Buffer.alloc(16))
  const plain = new ByteReader(Buffer.concat([decipher.update(encrypted), decipher.final()]))
  const secret = takeSized(plain, 'secret')
  refuseRest(plain, 'secret')
  return secret
}
