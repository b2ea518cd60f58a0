// Putting a sealed file in the place of a plain one, so that one of the two is there whatever happens.

import { constants } from 'node:fs'
import { lstat, open, rm } from 'node:fs/promises'
import { dirname } from 'node:path'

import { syncDirectory, writeFileAtomically } from '#lib/atomic-file.ts'
import { describeError, KitError, systemErrorCode } from '#lib/errors.ts'
import { SEALED_ENDING, SECRET_MAX_BYTES } from '#machine/secret-files.ts'

import { isSealed, seal } from './age-file.ts'

/** Writes `<file>.age`, and removes the file when that is on the disk for good. Resolves with its path. Throws KitError. */
export async function sealFile(file: string, recipient: string): Promise<string> {
  const { content, mtimeMs, ino } = await readPlain(file)
  const sealedFile = `${file}${SEALED_ENDING}`
  await writeSealed(sealedFile, content, recipient)
  const now = await lstat(file).catch(() => undefined)
  if (now === undefined) return sealedFile
  if (now.ino !== ino || now.mtimeMs !== mtimeMs || now.size !== content.length) {
    throw new KitError('conflict', `Cannot remove ${file}: it was changed while it was encrypted`, {
      fix: `kateskit secret seal ${file} encrypts it as it is now`,
    })
  }
  await rm(file)
  await syncDirectory(dirname(file))
  return sealedFile
}

/** Throws KitError `too-large`, `unavailable`. */
export async function writeSealed(sealedFile: string, content: Uint8Array, recipient: string): Promise<void> {
  if (content.length > SECRET_MAX_BYTES) {
    const message = `Cannot encrypt ${content.length} bytes as ${sealedFile}: a secret file has ${SECRET_MAX_BYTES} at most`
    throw new KitError('too-large', message)
  }
  const text = await seal(content, recipient)
  await writeFileAtomically(sealedFile, text).catch((cause: unknown) => {
    throw new KitError('unavailable', `Cannot write ${sealedFile}: ${describeError(cause)}`, { cause })
  })
}

async function readPlain(file: string) {
  const refuse = (reason: string, cause?: unknown) =>
    new KitError('invalid-input', `Cannot encrypt ${file}: ${reason}`, { cause })
  if (file.endsWith(SEALED_ENDING)) throw refuse('it is encrypted already, by its name')
  const handle = await open(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK).catch(
    (error: unknown) => {
      throw refuse(systemErrorCode(error) === 'ELOOP' ? 'it is a link' : describeError(error), error)
    },
  )
  try {
    const { size, mtimeMs, ino, ...stats } = await handle.stat()
    if ((stats.mode & constants.S_IFMT) !== constants.S_IFREG) throw refuse('it is no plain file')
    if (size > SECRET_MAX_BYTES)
      throw refuse(`it has ${size} bytes, and a secret file ${SECRET_MAX_BYTES} at most`)
    const content = await handle.readFile()
    if (isSealed(content)) throw refuse(`it is encrypted already; call it ${file}${SEALED_ENDING}`)
    return { content, mtimeMs, ino }
  } finally {
    await handle.close()
  }
}
