// The key that signs images: made once, kept where only the server reads it.

import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign,
} from 'node:crypto'
import { mkdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'

import { writeFileAtomically } from '#lib/atomic-file.ts'
import { describeError, KitError, systemErrorCode } from '#lib/errors.ts'
import type { Log } from '#lib/log.ts'

import { KEY_NUMBER_BYTES, signifyText } from './signify.ts'

const KEY_FILE = 'image-signing.key'
const PUBLIC_FILE = 'image-signing.pub'

export interface SigningKey {
  /** Hex: tells this key from others. */
  readonly number: string
  /** In signify's format. */
  readonly publicText: string
  /** The signature of a text, in signify's format. */
  sign(text: string): string
}

/** Makes the key pair when there is none, and the public half again when it is missing. Throws KitError. */
export async function openSigningKey(directory: string, log: Log): Promise<SigningKey> {
  const file = join(directory, KEY_FILE)
  try {
    await mkdir(directory, { recursive: true, mode: 0o700 })
    const pem = (await readIfThere(file)) ?? (await makeKey(file, log))
    const key = signingKeyOf(createPrivateKey(pem))
    await warnIfOpen(file, log)
    const publicFile = join(directory, PUBLIC_FILE)
    if ((await readIfThere(publicFile)) !== key.publicText)
      await writeFileAtomically(publicFile, key.publicText)
    return key
  } catch (error) {
    throw new KitError('unavailable', `Cannot use the signing key ${file}: ${describeError(error)}`, {
      fix: `put the right file there, or move it away: a new key is made then, which installed machines do not know`,
      cause: error,
    })
  }
}

function signingKeyOf(privateKey: KeyObject): SigningKey {
  if (privateKey.asymmetricKeyType !== 'ed25519') throw new Error('it is not an ed25519 key')
  // The last 32 bytes of the SubjectPublicKeyInfo are the key itself (RFC 8410 §4).
  const bytes = createPublicKey(privateKey).export({ type: 'spki', format: 'der' }).subarray(-32)
  // signify's own are random; this way the public file can always be made again.
  const keyNumber = createHash('sha256').update(bytes).digest().subarray(0, KEY_NUMBER_BYTES)
  return {
    number: keyNumber.toString('hex'),
    publicText: signifyText({ comment: 'kateskit image public key', keyNumber, bytes }),
    sign: (text) =>
      signifyText({
        comment: `verify with ${PUBLIC_FILE}`,
        keyNumber,
        bytes: sign(null, Buffer.from(text), privateKey),
      }),
  }
}

/** Complete or absent, and never readable by anybody else. */
async function makeKey(file: string, log: Log): Promise<string> {
  const { privateKey } = generateKeyPairSync('ed25519')
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
  await writeFileAtomically(file, pem, 0o600)
  log.info({ file }, 'made the key that signs images; keep a copy: machines trust no other')
  return pem
}

async function warnIfOpen(file: string, log: Log): Promise<void> {
  const { mode } = await stat(file)
  if ((mode & 0o077) === 0) return
  const fix = `chmod 600 ${file}`
  log.warn({ file, mode: (mode & 0o777).toString(8), fix }, 'others may read the key that signs images')
}

async function readIfThere(file: string): Promise<string | undefined> {
  return readFile(file, 'utf8').catch((error: unknown) => {
    if (systemErrorCode(error) === 'ENOENT') return undefined
    throw error
  })
}
