// Files in the format age v1 (age-encryption.org/v1), binary or armored: sealed for X25519 recipients, opened with one identity.

import { armor, Decrypter, Encrypter, generateX25519Identity, identityToRecipient } from 'age-encryption'

import { KitError } from '#lib/errors.ts'

const BINARY_START = 'age-encryption.org/v1\n'
const ARMOR_START = '-----BEGIN AGE ENCRYPTED FILE-----'

/** By its first bytes; white space before an armored one does not count. */
export function isSealed(bytes: Uint8Array): boolean {
  const start = Buffer.from(bytes.subarray(0, 256)).toString('latin1')
  return start.startsWith(BINARY_START) || isArmored(start)
}

/** As text, so that it can be read over and lies well in git. Throws KitError `invalid-input` for what is no recipient. */
export async function seal(content: Uint8Array, recipient: string): Promise<string> {
  const encrypter = new Encrypter()
  try {
    encrypter.addRecipient(recipient)
  } catch (cause) {
    throw new KitError(
      'invalid-input',
      `Cannot encrypt for ${JSON.stringify(recipient.slice(0, 80))}: no age recipient`,
      {
        cause,
      },
    )
  }
  return armor.encode(await encrypter.encrypt(content))
}

/** Throws KitError `invalid-input` with a message that tells nothing of the content. */
export async function openSealed(bytes: Uint8Array, identity: string): Promise<Uint8Array> {
  if (!isSealed(bytes)) throw new KitError('invalid-input', 'it is not encrypted: no file of age')
  const decrypter = new Decrypter()
  decrypter.addIdentity(identity)
  try {
    const text = Buffer.from(bytes).toString('latin1')
    return await decrypter.decrypt(isArmored(text) ? armor.decode(text) : bytes)
  } catch (cause) {
    // The library has no codes; of what goes wrong only this one has another remedy.
    const isForOthers = cause instanceof Error && cause.message.startsWith('no identity matched')
    const reason = isForOthers ? "it is not encrypted for this server's key" : 'it is damaged, or was changed'
    throw new KitError('invalid-input', reason, { cause })
  }
}

/** `AGE-SECRET-KEY-1…` */
export function newIdentity(): Promise<string> {
  return generateX25519Identity()
}

/** Throws when it is no identity. */
export function recipientOf(identity: string): Promise<string> {
  return identityToRecipient(identity)
}

function isArmored(text: string): boolean {
  return text.trimStart().startsWith(ARMOR_START)
}
