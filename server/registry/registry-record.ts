// What the registry knows of one name: references/<sha256 of the name>.json.

import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import * as z from 'zod'

import { writeFileAtomically } from '#lib/atomic-file.ts'
import { findReference, formatReference } from '#machine/image-reference.ts'

import type { Descriptor } from './oci-content.ts'

const shape = z.object({
  format: z.literal(1),
  reference: z.string(),
  digest: z.string().regex(/^sha256:[0-9a-f]{64}$/),
  mediaType: z.string(),
  sizeBytes: z.int().nonnegative(),
  importedMs: z.int().nonnegative(),
})

export interface RegistryRecord {
  readonly reference: string
  readonly root: Descriptor
  readonly importedMs: number
}

/** A name has slashes and colons; its file has none. */
export function recordFileOf(reference: string): string {
  return `${createHash('sha256').update(reference).digest('hex')}.json`
}

/** On disk when it resolves. */
export async function writeRecord(
  file: string,
  { reference, root, importedMs }: RegistryRecord,
): Promise<void> {
  const { digest, mediaType, size: sizeBytes } = root
  const text = JSON.stringify(
    { format: 1, reference, digest, mediaType, sizeBytes, importedMs },
    undefined,
    1,
  )
  await writeFileAtomically(file, `${text}\n`)
}

/** Throws an Error that says what is wrong with it. */
export async function readRecord(file: string): Promise<RegistryRecord> {
  const outcome = shape.safeParse(JSON.parse(await readFile(file, 'utf8')))
  if (!outcome.success) throw new Error(z.prettifyError(outcome.error))
  const { reference, digest, mediaType, sizeBytes: size, importedMs } = outcome.data
  const parsed = findReference(reference)
  if (parsed === undefined || formatReference(parsed) !== reference) throw new Error('it names no image')
  return { reference, root: { mediaType, digest, size }, importedMs }
}
