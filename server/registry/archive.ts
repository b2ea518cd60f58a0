// Where container images are imported from, behind one interface: a tar or a folder.

import { readFile, statfs } from 'node:fs/promises'

import { KitError } from '#lib/errors.ts'

import { MANIFEST_MAX_BYTES } from './oci-content.ts'

/** A file of the archive, in the folder of the import: whole, and hashed. */
export interface ArchivedFile {
  readonly file: string
  readonly sizeBytes: number
  /** Hex. */
  readonly sha256: string
}

export interface Archive {
  /** By its name in the archive, which is looked up and never joined to a path. Undefined where there is none. Throws KitError. */
  find(name: string): Promise<ArchivedFile | undefined>
}

export interface ArchiveOptions {
  /** Safe to show. */
  readonly shown: string
  /** A folder of this import's own. */
  readonly incoming: string
  readonly signal: AbortSignal
  /** So much of the source has been read. */
  readonly onRead: (bytes: number, ofBytes: number) => void
}

/** Left for what else the server writes. */
const SPARE_BYTES = 64 * 1024 * 1024
const LOOK_EVERY_BYTES = 32 * 1024 * 1024

/** Keeps an import from taking the last of the disk: what is compressed does not say how large it is. */
export class SpaceWatch {
  readonly #folder: string
  #untilLook = 0

  constructor(folder: string) {
    this.#folder = folder
  }

  /** Before so many bytes are written. Throws KitError `no-space`. */
  async expect(bytes: number): Promise<void> {
    this.#untilLook -= bytes
    if (this.#untilLook > 0) return
    this.#untilLook = LOOK_EVERY_BYTES
    const { bavail, bsize } = await statfs(this.#folder)
    if (bavail * bsize < SPARE_BYTES + LOOK_EVERY_BYTES) throw noSpace(this.#folder)
  }
}

export function noSpace(folder: string, cause?: unknown): KitError {
  return new KitError('no-space', `Cannot import this: the disk of ${folder} is full`, {
    fix: 'free some space, or remove images that no machine needs: kateskit registry list',
    cause,
  })
}

export function cannotImport(shown: string, why: string, cause?: unknown): KitError {
  return new KitError('invalid-input', `Cannot import ${shown}: ${why}`, { cause })
}

/** A file that says something about others. Throws KitError for one that is larger than a manifest may be. */
export async function readSmall({ file, sizeBytes }: ArchivedFile, what: string): Promise<Uint8Array> {
  if (sizeBytes <= MANIFEST_MAX_BYTES) return readFile(file)
  throw new KitError('invalid-input', `Cannot use ${what}: ${sizeBytes} bytes are too many for a manifest`)
}

/** A name without `./` before it; undefined for one that leads out of the archive. */
export function plainName(name: string): string | undefined {
  const plain = name.replace(/^(\.\/+)+/, '').replace(/\/+$/, '')
  const isOut = plain.startsWith('/') || plain.includes('\0') || plain.split('/').includes('..')
  return isOut ? undefined : plain
}
