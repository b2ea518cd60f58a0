// Text sealed with a passphrase in the format age v1 (age-encryption.org/v1): what `age -d` opens.

import { createCipheriv, createDecipheriv, randomBytes, scrypt } from 'node:crypto'

import { armor, Decrypter, Encrypter, type Identity, type Recipient, Stanza } from 'age-encryption'

import { describeError } from '#lib/errors.ts'
import { readFlatFile } from '#lib/flat-file.ts'

/** 128 MiB and half a second of one core for each guess; age's own, 18, would ask small servers for 256 MiB. */
const LOG_N = 17
/** What `age` itself accepts at most. */
const LOG_N_MAX = 22

const LABEL = 'age-encryption.org/v1/scrypt'
const SALT_BYTES = 16
const TAG_BYTES = 16
const CIPHER = 'chacha20-poly1305'
/** Each key seals one thing, once. */
const NONCE = Buffer.alloc(12)

/** Armored. */
export async function sealWithPassphrase(text: string, passphrase: string): Promise<string> {
  const encrypter = new Encrypter()
  encrypter.addRecipient(recipientOf(passphrase))
  return armor.encode(await encrypter.encrypt(text))
}

/** Throws Error `another passphrase` or `damaged`, and nothing that tells of the content. */
export async function openWithPassphrase(sealed: string, passphrase: string): Promise<string> {
  const decrypter = new Decrypter()
  let isKeyFound = false
  const identity: Identity = {
    async unwrapFileKey(stanzas) {
      const key = await identityOf(passphrase).unwrapFileKey(stanzas)
      isKeyFound = key !== null
      return key
    },
  }
  decrypter.addIdentity(identity)
  try {
    return await decrypter.decrypt(armor.decode(sealed.trim()), 'text')
  } catch (cause) {
    throw new Error(isKeyFound || !isWhole(sealed) ? 'damaged' : 'another passphrase', { cause })
  }
}

/** Throws Error with what is wrong with the file. */
export async function readPassphrase(file: string): Promise<string> {
  const passphrase = await readFlatFile(file).catch((cause: unknown) => {
    throw new Error(`${file} cannot be read: ${describeError(cause)}`, { cause })
  })
  if (passphrase === '') throw new Error(`${file} is empty`)
  return passphrase
}

/** The library's own does the same on the main thread, where it keeps everything else waiting for two seconds. */
function recipientOf(passphrase: string): Recipient {
  return {
    async wrapFileKey(fileKey) {
      const salt = randomBytes(SALT_BYTES)
      const cipher = createCipheriv(CIPHER, await deriveKey(passphrase, salt, LOG_N), NONCE, {
        authTagLength: TAG_BYTES,
      })
      const body = Buffer.concat([cipher.update(fileKey), cipher.final(), cipher.getAuthTag()])
      return [new Stanza(['scrypt', toBase64(salt), String(LOG_N)], body)]
    },
  }
}

function identityOf(passphrase: string): Identity {
  return {
    async unwrapFileKey(stanzas) {
      const [stanza, ...others] = stanzas
      const [type, salt = '', logN = ''] = stanza?.args ?? []
      // A passphrase stands alone: the format says so.
      if (stanza === undefined || type !== 'scrypt' || others.length > 0) return null
      if (!/^[1-9]\d?$/.test(logN) || Number(logN) > LOG_N_MAX) return null
      const key = await deriveKey(passphrase, Buffer.from(salt, 'base64'), Number(logN))
      const decipher = createDecipheriv(CIPHER, key, NONCE, { authTagLength: TAG_BYTES })
      decipher.setAuthTag(stanza.body.subarray(-TAG_BYTES))
      try {
        const opened = decipher.update(stanza.body.subarray(0, -TAG_BYTES))
        return Buffer.concat([opened, decipher.final()])
      } catch {
        return null
      }
    },
  }
}

/** On a thread of its own. */
function deriveKey(passphrase: string, salt: Buffer, logN: number): Promise<Buffer> {
  const cost = 2 ** logN
  const options = { N: cost, r: 8, p: 1, maxmem: 128 * 8 * cost + 1024 * 1024 }
  const labelled = Buffer.concat([Buffer.from(LABEL), salt])
  return new Promise((resolve, reject) => {
    scrypt(passphrase, labelled, 32, options, (error, key) => {
      if (error === null) resolve(key)
      else reject(error)
    })
  })
}

function isWhole(sealed: string): boolean {
  try {
    return Buffer.from(armor.decode(sealed.trim())).toString('latin1').startsWith('age-encryption.org/v1\n')
  } catch {
    return false
  }
}

function toBase64(bytes: Buffer): string {
  return bytes.toString('base64').replaceAll('=', '')
}
