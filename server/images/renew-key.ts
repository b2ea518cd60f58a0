// Another signing key: every image's initrd gets it in place of the one it had.

import { rm } from 'node:fs/promises'

import type { ImageRecord } from './image-record.ts'
import { byName, INITRD, makeServedInitrd, takeBuiltInitrd } from './served-files.ts'
import type { SigningKey } from './signing-key.ts'
import type { StoreFolder } from './store-folder.ts'

/** Resolves with false where the initrd of the store is damaged: only importing the image again mends that. */
export async function renewKey(
  record: ImageRecord,
  { store, key, nowMs }: { readonly store: StoreFolder; readonly key: SigningKey; readonly nowMs: number },
): Promise<boolean> {
  const built = record.build.files.find(({ name }) => name === INITRD)
  const served = record.files.find(({ name }) => name === INITRD)
  if (built === undefined || served === undefined) return false
  const folder = await store.openIncoming(`key-${record.build.version}`, nowMs)
  try {
    if (!(await takeBuiltInitrd(built, store.fileOf(served.sha256), folder))) return false
    const made = await makeServedInitrd(built, folder, { key })
    const names = new Set(made.map(({ name }) => name))
    const files = [...record.files.filter(({ name }) => !names.has(name)), ...made].sort(byName)
    await store.add({ ...record, files, keyNumber: key.number }, folder, made)
    return true
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}
