// The registry on disk: blobs/<sha256>, references/, incoming/, imported/. Everything in the first two is whole or absent.

import { chmod, mkdir, readdir, readFile, rename, rm, stat, utimes } from 'node:fs/promises'
import { join } from 'node:path'

import { syncDirectory, TEMPORARY_PREFIX } from '#lib/atomic-file.ts'
import { describeError, KitError, systemErrorCode } from '#lib/errors.ts'
import { readContent, syncFile } from '#lib/file-bytes.ts'
import { createKeyedQueue } from '#lib/keyed-queue.ts'
import { formatReference } from '#machine/image-reference.ts'

import { type BlobSource, type ImageGraph, walkImage } from './image-graph.ts'
import type { NamedImage } from './naming.ts'
import { MANIFEST_MAX_BYTES, shortDigest } from './oci-content.ts'
import { type RegistryRecord, readRecord, recordFileOf, writeRecord } from './registry-record.ts'

/** What an interrupted download has fetched is of use for so long. */
const LEFTOVERS_KEPT_MS = 7 * 24 * 3600 * 1000
/** The one file of an import that the next attempt goes on with, and what tells that it is still the same. */
export const DOWNLOADED = 'archive.part'

/** A name, and what it stands for: whole, or why it is not. */
export interface KeptImage extends RegistryRecord {
  readonly graph?: ImageGraph
  readonly problem?: string
}

export class RegistryFolder implements BlobSource {
  readonly directory: string
  readonly #images = new Map<string, KeptImage>()
  /** Records that cannot be read: they may need any blob here, so none is taken for unused. */
  readonly #unreadable = new Map<string, string>()
  /** Bringing images in and taking one out share blobs: one after another. */
  readonly #changes = createKeyedQueue<'change'>()

  constructor(directory: string) {
    this.directory = directory
  }

  /** Reads everything anew, and removes what belongs to nothing. Resolves with what is wrong. */
  async load(nowMs: number): Promise<readonly string[]> {
    for (const folder of ['blobs', 'references', 'incoming', 'imported']) {
      await mkdir(join(this.directory, folder), { recursive: true })
    }
    this.#images.clear()
    this.#unreadable.clear()
    for (const folder of ['references', 'imported']) await dropTemporary(join(this.directory, folder))
    for (const name of await readdir(join(this.directory, 'references'))) await this.#loadRecord(name)
    await this.#dropUnused()
    await this.dropLeftovers(nowMs)
    const damaged = this.images.flatMap(({ problem }) => (problem === undefined ? [] : [problem]))
    return [...[...this.#unreadable].map(([file, why]) => `${file}: ${why}`), ...damaged]
  }

  async #loadRecord(name: string): Promise<void> {
    const file = join(this.directory, 'references', name)
    if (!name.endsWith('.json') || name.startsWith('.')) return
    try {
      await this.#keep(await readRecord(file))
    } catch (error) {
      this.#unreadable.set(file, describeError(error))
    }
  }

  /** In the order of their names. */
  get images(): readonly KeptImage[] {
    return [...this.#images.values()].sort((left, right) => (left.reference < right.reference ? -1 : 1))
  }

  find(reference: string): KeptImage | undefined {
    return this.#images.get(reference)
  }

  fileOf(sha256: string): string {
    return join(this.directory, 'blobs', sha256)
  }

  async sizeOf(sha256: string): Promise<number | undefined> {
    try {
      return (await stat(this.fileOf(sha256))).size
    } catch (error) {
      if (systemErrorCode(error) === 'ENOENT') return undefined
      throw error
    }
  }

  async read(sha256: string): Promise<Uint8Array> {
    const size = (await this.sizeOf(sha256)) ?? 0
    if (size > MANIFEST_MAX_BYTES) throw new Error(`blob ${shortDigest(sha256)} is too large`)
    return readFile(this.fileOf(sha256))
  }

  /** A folder for one import, the same for the same key. */
  async openIncoming(key: string, nowMs: number): Promise<string> {
    const folder = join(this.directory, 'incoming', key)
    await mkdir(folder, { recursive: true, mode: 0o700 })
    await utimes(folder, nowMs / 1000, nowMs / 1000)
    return folder
  }

  /** Of what imports have left, only young downloads are kept. */
  async dropLeftovers(nowMs: number): Promise<void> {
    for (const name of await readdir(join(this.directory, 'incoming'))) {
      const folder = join(this.directory, 'incoming', name)
      const { mtimeMs } = await stat(folder)
      const isYoung = nowMs - mtimeMs <= LEFTOVERS_KEPT_MS
      if (!(isYoung && (await keepDownload(folder)))) await rm(folder, { recursive: true, force: true })
    }
  }

  /**
   * Takes in blobs (sha256 → a file of the import) and names; on disk for good when it resolves. A blob that is here
   * already is replaced by the same content: that mends a damaged one, and whoever reads it reads on.
   */
  async add(
    named: readonly NamedImage[],
    blobs: ReadonlyMap<string, string>,
    importedMs: number,
  ): Promise<void> {
    for (const file of blobs.values()) {
      await chmod(file, 0o444)
      await syncFile(file)
    }
    await this.#changes.run('change', async () => {
      try {
        for (const [sha256, file] of blobs) await rename(file, this.fileOf(sha256))
        await syncDirectory(join(this.directory, 'blobs'))
        for (const { reference, descriptor } of named) {
          const { mediaType, digest, size } = descriptor
          const record = {
            reference: formatReference(reference),
            root: { mediaType, digest, size },
            importedMs,
          }
          await writeRecord(this.#recordFile(record.reference), record)
          await this.#keep(record)
        }
      } finally {
        await this.#reload()
        await this.#dropUnused()
      }
    })
  }

  /** Throws KitError `not-found`. */
  async remove(reference: string): Promise<void> {
    await this.#changes.run('change', async () => {
      if (!this.#images.has(reference)) throw noSuchImage(reference)
      await rm(this.#recordFile(reference), { force: true })
      await syncDirectory(join(this.directory, 'references'))
      this.#images.delete(reference)
      await this.#dropUnused()
    })
  }

  /** Reads every byte of it; resolves with what is wrong. */
  async check({ graph, problem }: KeptImage): Promise<readonly string[]> {
    if (graph === undefined) return [problem ?? 'it cannot be read']
    const problems: string[] = []
    for (const sha256 of graph.blobs.keys()) {
      const found = await readContent(this.fileOf(sha256)).catch((error: unknown) => error)
      if (found instanceof Error) problems.push(`blob ${shortDigest(sha256)}: ${describeError(found)}`)
      else if ((found as { sha256: string }).sha256 !== sha256)
        problems.push(`blob ${shortDigest(sha256)} is damaged`)
    }
    return problems
  }

  async #keep(record: RegistryRecord): Promise<void> {
    try {
      const graph = await walkImage(record.root, this, record.reference)
      this.#images.set(record.reference, { ...record, graph })
    } catch (error) {
      this.#images.set(record.reference, { ...record, problem: describeError(error) })
    }
    this.#unreadable.delete(this.#recordFile(record.reference))
  }

  /** What has come may make another whole, or larger: an index of which more platforms are here now. */
  async #reload(): Promise<void> {
    for (const image of this.images) await this.#keep(image)
  }

  #recordFile(reference: string): string {
    return join(this.directory, 'references', recordFileOf(reference))
  }

  /** Nothing goes while it is not known what all of them need. */
  async #dropUnused(): Promise<void> {
    const images = this.images
    if (this.#unreadable.size > 0 || images.some(({ graph }) => graph === undefined)) return
    const used = new Set(images.flatMap(({ graph }) => [...(graph?.blobs.keys() ?? [])]))
    for (const name of await readdir(join(this.directory, 'blobs'))) {
      // What is called otherwise is not ours: somebody may have named a folder that was there before.
      if (/^[0-9a-f]{64}$/.test(name) && !used.has(name)) await rm(this.fileOf(name), { force: true })
    }
  }
}

/** Of writes that a kill has ended. */
async function dropTemporary(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    if (name.startsWith(TEMPORARY_PREFIX)) await rm(join(folder, name), { force: true })
  }
}

/** Removes all of an import but what it has downloaded. Whether there is such a thing. */
export async function keepDownload(folder: string): Promise<boolean> {
  const names = await readdir(folder).catch((): string[] => [])
  for (const name of names) {
    if (!name.startsWith(DOWNLOADED)) await rm(join(folder, name), { recursive: true, force: true })
  }
  return names.includes(DOWNLOADED)
}

export function noSuchImage(reference: string): KitError {
  return new KitError('not-found', `Cannot find ${reference}: the registry has no image of that name`, {
    fix: 'kateskit registry list',
  })
}
