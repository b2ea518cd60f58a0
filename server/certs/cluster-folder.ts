// Where the keys of a cluster lie on the server: files as under kubeadm's `pki/`, the private ones in one sealed file when there is a passphrase.

import { mkdir, open, readFile, rename, rm, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'

import { syncDirectory, writeFileAtomically } from '#lib/atomic-file.ts'
import { systemErrorCode } from '#lib/errors.ts'

import { type PkiFiles, PRIVATE_FILES, PUBLIC_FILES } from './cluster-authorities.ts'
import { openWithPassphrase, sealWithPassphrase } from './cluster-passphrase.ts'

/** JSON of the private files by path, sealed. Once it is there, no other private file counts. */
const SEALED_FILE = 'keys.age'

/** Beside the folder it becomes. One server at a time uses the keys. */
const unfinishedName = (folder: string) => `${folder}.unfinished`

/** Undefined when there is no folder: then, and only then, there are no keys yet. Throws Error that says what is wrong. */
export async function readKeyFolder(
  folder: string,
  passphrase: string | undefined,
): Promise<PkiFiles | undefined> {
  await rm(unfinishedName(folder), { recursive: true, force: true })
  if (!(await isThere(folder))) return undefined
  const files = await readFiles(folder, PUBLIC_FILES)
  const sealed = await readIfThere(join(folder, SEALED_FILE))
  const keys =
    sealed === undefined ? await readFiles(folder, PRIVATE_FILES) : await unseal(sealed, passphrase)
  if (passphrase !== undefined)
    await sealWhatIsPlain(folder, passphrase, sealed === undefined ? keys : undefined)
  return new Map([...files, ...keys])
}

/** All or nothing: also when the power goes in the middle of it. */
export async function writeKeyFolder(
  folder: string,
  files: PkiFiles,
  passphrase: string | undefined,
): Promise<void> {
  const unfinished = unfinishedName(folder)
  await mkdir(dirname(folder), { recursive: true, mode: 0o700 })
  await rm(unfinished, { recursive: true, force: true })
  await mkdir(join(unfinished, 'etcd'), { recursive: true, mode: 0o700 })
  for (const name of PUBLIC_FILES) await writeOnce(join(unfinished, name), files.get(name) ?? '')
  const keys = pick(files, PRIVATE_FILES)
  if (passphrase !== undefined)
    await writeOnce(join(unfinished, SEALED_FILE), await sealKeys(keys, passphrase))
  else for (const [name, text] of keys) await writeOnce(join(unfinished, name), text)
  await syncDirectory(join(unfinished, 'etcd'))
  await syncDirectory(unfinished)
  await rename(unfinished, folder)
  await syncDirectory(dirname(folder))
}

/** Those of `names` that are there. */
export async function readFiles(folder: string, names: readonly string[]): Promise<PkiFiles> {
  const found = new Map<string, string>()
  for (const name of names) {
    const text = await readIfThere(join(folder, name))
    if (text !== undefined) found.set(name, text)
  }
  return found
}

export async function isThere(path: string): Promise<boolean> {
  try {
    await stat(path)
    return true
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return false
    throw error
  }
}

/** `keys` undefined: they are sealed already, and what lies there in plain text is what a power cut left. */
async function sealWhatIsPlain(
  folder: string,
  passphrase: string,
  keys: PkiFiles | undefined,
): Promise<void> {
  // What is not whole is for `readPki` to complain of.
  if (keys !== undefined && keys.size < PRIVATE_FILES.length) return
  if (keys !== undefined)
    await writeFileAtomically(join(folder, SEALED_FILE), await sealKeys(keys, passphrase), 0o600)
  for (const name of PRIVATE_FILES) await rm(join(folder, name), { force: true })
}

/** Opened once before anything relies on it. */
async function sealKeys(keys: PkiFiles, passphrase: string): Promise<string> {
  const text = JSON.stringify(Object.fromEntries(keys))
  const sealed = await sealWithPassphrase(text, passphrase)
  if ((await openWithPassphrase(sealed, passphrase)) !== text) throw new Error('they cannot be encrypted')
  return `${sealed.trimEnd()}\n`
}

async function unseal(sealed: string, passphrase: string | undefined): Promise<PkiFiles> {
  if (passphrase === undefined) throw new Error('they are encrypted, and the passphrase is missing')
  const text = await openWithPassphrase(sealed, passphrase).catch((cause: unknown) => {
    const isOther = cause instanceof Error && cause.message === 'another passphrase'
    throw new Error(isOther ? 'they are encrypted with another passphrase' : `${SEALED_FILE} is damaged`, {
      cause,
    })
  })
  return pick(new Map(Object.entries(JSON.parse(text) as Record<string, string>)), PRIVATE_FILES)
}

function pick(files: PkiFiles, names: readonly string[]): PkiFiles {
  return new Map([...files].filter(([name]) => names.includes(name)))
}

async function writeOnce(path: string, text: string): Promise<void> {
  const handle = await open(path, 'wx', 0o600)
  try {
    await handle.writeFile(text)
    await handle.sync()
  } finally {
    await handle.close()
  }
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined
    throw error
  }
}
