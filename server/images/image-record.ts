// What the store knows of one image: versions/<version>.json.

import { readFile } from 'node:fs/promises'
import * as z from 'zod'

import { writeFileAtomically } from '#lib/atomic-file.ts'
import { describeError } from '#lib/errors.ts'
import type { StoredImage } from '#machine/ports.ts'

import { type BuildFile, type BuildManifest, buildShape, fileShape } from './build-manifest.ts'

export interface ImageRecord {
  /** As the recipe wrote it, with what people want to know of it (packages, kernel). */
  readonly build: BuildManifest
  /** As machines get them: the initrd with the key, and what the build did not have. */
  readonly files: readonly BuildFile[]
  /** Milliseconds since 1970. */
  readonly importedMs: number
  /** Of the key in the initrd. */
  readonly keyNumber: string
}

const recordShape = z.object({
  format: z.literal(1),
  importedMs: z.int().nonnegative(),
  keyNumber: z.string(),
  files: z.array(fileShape),
  build: buildShape,
})

/** On disk when it resolves. */
export async function writeRecord(file: string, record: ImageRecord): Promise<void> {
  const { importedMs, keyNumber, files, build } = record
  const text = JSON.stringify({ format: 1, importedMs, keyNumber, files, build }, undefined, 1)
  await writeFileAtomically(file, `${text}\n`)
}

/** Throws an Error that says what is wrong with it. */
export async function readRecord(file: string): Promise<ImageRecord> {
  const result = recordShape.safeParse(JSON.parse(await readFile(file, 'utf8')))
  if (result.success) return result.data
  throw new Error(describeError(z.prettifyError(result.error)))
}

/** `fileOf` says where the content with a sha256 lies. */
export function storedImageOf(record: ImageRecord, fileOf: (sha256: string) => string): StoredImage {
  const { version, arch, epoch, rootHash, kubernetes } = record.build
  const files = record.files.map((file) => [file.name, { ...file, file: fileOf(file.sha256) }] as const)
  return {
    version,
    arch,
    epoch,
    ...(rootHash !== undefined && { rootHash }),
    ...(kubernetes !== undefined && { kubernetes: kubernetes.version }),
    files: new Map(files),
    sizeBytes: record.files.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
    importedMs: record.importedMs,
  }
}
