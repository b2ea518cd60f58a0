// The key that opens what lies under secret/: made once, kept where only the server reads it.

import { mkdir, readFile, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'

import { writeFileAtomically } from '#lib/atomic-file.ts'
import { describeError, KitError, systemErrorCode } from '#lib/errors.ts'
import type { Log } from '#lib/log.ts'
import type { Service } from '#lib/service.ts'
import type { SecretsKey } from '#machine/secret-ports.ts'

import { newIdentity, openSealed, recipientOf } from './age-file.ts'

export const SECRETS_KEY_FILE = 'secrets.agekey'

export interface SecretsKeyOptions {
  /** Setting keys/directory. */
  readonly directory: string
  /** A file that was sealed already: a new key could not open it. Undefined when there is none. */
  readonly findSealed: () => Promise<string | undefined>
  readonly log: Log
}

export interface SecretsKeyService extends SecretsKey, Service {}

/** Starts before whoever asks for secrets. */
export function createSecretsKey(options: SecretsKeyOptions): SecretsKeyService {
  let key: ReadKey | undefined
  const opened = (): ReadKey => {
    if (key === undefined)
      throw new KitError('unavailable', 'Cannot open secrets: the server has not started')
    return key
  }
  return {
    name: 'secrets key',
    async start() {
      key = await openKey(options)
    },
    async stop() {},
    recipient: () => opened().recipient,
    open: (sealed) => openSealed(sealed, opened().identity),
  }
}

export interface ReadKey {
  readonly identity: string
  readonly recipient: string
}

/** Undefined when there is none. Throws KitError that names the file. */
export async function readKey(directory: string): Promise<ReadKey | undefined> {
  const file = join(directory, SECRETS_KEY_FILE)
  try {
    const lines = (await readFile(file, 'utf8')).split('\n').map((line) => line.trim())
    const [identity, ...more] = lines.filter((line) => line !== '' && !line.startsWith('#'))
    if (identity === undefined || more.length > 0) throw new Error('it must hold one identity of age')
    // Checked by its own sum (bech32): what is damaged is not taken for another key.
    const recipient = await recipientOf(identity).catch(() => {
      throw new Error('it holds no identity of age, or a damaged one') // the library's own words could hold a part of it
    })
    return { identity, recipient }
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined
    throw unusable(file, describeError(error))
  }
}

async function openKey({ directory, findSealed, log }: SecretsKeyOptions): Promise<ReadKey> {
  const file = join(directory, SECRETS_KEY_FILE)
  const key = await readKey(directory)
  if (key !== undefined) {
    await warnIfOpen(file, log)
    return key
  }
  const sealed = await findSealed()
  if (sealed !== undefined) throw unusable(file, `it is not there, and ${sealed} can be opened by no new one`)
  return makeKey(file, log).catch((error: unknown) => {
    throw unusable(file, describeError(error))
  })
}

function unusable(file: string, reason: string): KitError {
  return new KitError('unavailable', `Cannot use the key of the secrets ${file}: ${reason}`, {
    fix: 'put back the key that the files under secret/ were encrypted for. Without it they are lost: remove them and that file, and a new key is made',
  })
}

/** Complete or absent, and never readable by anybody else. */
async function makeKey(file: string, log: Log): Promise<ReadKey> {
  const identity = await newIdentity()
  const recipient = await recipientOf(identity)
  await mkdir(dirname(file), { recursive: true, mode: 0o700 })
  await writeFileAtomically(file, `# public key: ${recipient}\n${identity}\n`, 0o600)
  log.info(
    { file, recipient },
    'made the key of the secrets; keep a copy: nothing else opens what is under secret/',
  )
  return { identity, recipient }
}

async function warnIfOpen(file: string, log: Log): Promise<void> {
  const { mode } = await stat(file)
  if (mode & 0o077) log.warn({ file }, `others may read the key of the secrets: chmod 600 ${file}`)
}
