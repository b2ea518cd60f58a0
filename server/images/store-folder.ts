// The store on disk: files/<sha256>, versions/<version>.json, incoming/. Everything in the first two is whole or absent.

import { constants } from 'node:fs'
import { chmod, copyFile, link, mkdir, readdir, rename, rm, stat, utimes } from 'node:fs/promises'
import { join } from 'node:path'

import { syncDirectory, TEMPORARY_PREFIX } from '#lib/atomic-file.ts'
import { describeError, KitError, systemErrorCode } from '#lib/errors.ts'
import { readContent, syncFile } from '#lib/file-bytes.ts'
import { createKeyedQueue } from '#lib/keyed-queue.ts'
import type { BuildFile } from './build-manifest.ts'
import { type ImageRecord, readRecord, writeRecord } from './image-record.ts'

/** What an import that was interrupted has fetched is of use for so long. */
const LEFTOVERS_KEPT_MS = 7 * 24 * 3600 * 1000

export interface BrokenRecord {
  readonly version: string
  readonly file: string
  readonly message: string
}

export class StoreFolder {
  readonly directory: string
  readonly #records = new Map<string, ImageRecord>()
  /** Versions whose record cannot be read: it may need any file here, so none is taken for unused. */
  readonly #unreadable = new Set<string>()
  /** Bringing an image in and taking one out share files: one after another. */
  readonly #changes = createKeyedQueue<'change'>()

  constructor(directory: string) {
    this.directory = directory
  }

  /** Reads everything anew, and removes what belongs to nothing. Resolves with the records that cannot be read. */
  async load(nowMs: number): Promise<readonly BrokenRecord[]> {
    for (const folder of ['files', 'versions', 'incoming']) {
      await mkdir(join(this.directory, folder), { recursive: true })
    }
    this.#records.clear()
    this.#unreadable.clear()
    const broken: BrokenRecord[] = []
    for (const name of await readdir(join(this.directory, 'versions'))) {
      const file = join(this.directory, 'versions', name)
      const version = /^([^.].*)\.json$/.exec(name)?.[1]
      if (name.startsWith(TEMPORARY_PREFIX)) await rm(file, { force: true })
      if (version === undefined) continue
      try {
        this.#records.set(version, await readRecord(file))
      } catch (error) {
        this.#unreadable.add(version)
        broken.push({ version, file, message: describeError(error) })
      }
    }
    await this.#dropUnused()
    await this.dropLeftovers(nowMs)
    return broken
  }

  get records(): readonly ImageRecord[] {
    return [...this.#records.values()]
  }

  find(version: string): ImageRecord | undefined {
    return this.#records.get(version)
  }

  fileOf(sha256: string): string {
    return join(this.directory, 'files', sha256)
  }

  /** A folder for one import, the same for the same key, so that what an earlier attempt has fetched is found again. */
  async openIncoming(key: string, nowMs: number): Promise<string> {
    const folder = join(this.directory, 'incoming', key)
    await mkdir(folder, { recursive: true })
    await utimes(folder, nowMs / 1000, nowMs / 1000)
    return folder
  }

  async dropLeftovers(nowMs: number): Promise<void> {
    for (const name of await readdir(join(this.directory, 'incoming'))) {
      const folder = join(this.directory, 'incoming', name)
      const { mtimeMs } = await stat(folder)
      if (nowMs - mtimeMs > LEFTOVERS_KEPT_MS) await rm(folder, { recursive: true, force: true })
    }
  }

  /** Whether the store has a file with this content, which is read and not believed; `target` is then it, too. */
  async lend({ sha256, sizeBytes }: BuildFile, target: string): Promise<boolean> {
    const file = this.fileOf(sha256)
    try {
      if ((await stat(file)).size !== sizeBytes || (await readContent(file)).sha256 !== sha256) return false
      await rm(target, { force: true })
      await link(file, target).catch((error: unknown) => {
        if (systemErrorCode(error) === 'ENOENT') throw error
        return copyFile(file, target, constants.COPYFILE_FICLONE) // a file system without hard links
      })
      return true
    } catch (error) {
      if (systemErrorCode(error) === 'ENOENT') return false
      throw error
    }
  }

  /**
   * Makes an image of files in an import's folder, each named by its sha256; on disk for good when it resolves. A file
   * that is here already is replaced by the same content: that mends a damaged one, and whoever reads it reads on.
   * With `brought` only these are in the folder, and the store has the others.
   */
  async add(record: ImageRecord, incoming: string, brought = record.files): Promise<void> {
    const digests = new Set(brought.map(({ sha256 }) => sha256))
    for (const sha256 of digests) {
      await chmod(join(incoming, sha256), 0o444)
      await syncFile(join(incoming, sha256))
    }
    await this.#changes.run('change', async () => {
      for (const sha256 of digests) await rename(join(incoming, sha256), this.fileOf(sha256))
      await syncDirectory(join(this.directory, 'files'))
      await this.#write(record)
      await this.#dropUnused()
    })
  }

  /** Only what the record itself says changes. */
  async rewrite(record: ImageRecord): Promise<void> {
    await this.#changes.run('change', () => this.#write(record))
  }

  /** Throws KitError `not-found`. */
  async remove(version: string): Promise<void> {
    await this.#changes.run('change', async () => {
      if (!this.#records.has(version) && !this.#unreadable.has(version)) throw noSuchImage(version)
      await rm(this.#recordFile(version), { force: true })
      await syncDirectory(join(this.directory, 'versions'))
      this.#records.delete(version)
      this.#unreadable.delete(version)
      await this.#dropUnused()
    })
  }

  async #write(record: ImageRecord): Promise<void> {
    await writeRecord(this.#recordFile(record.build.version), record)
    this.#records.set(record.build.version, record)
    this.#unreadable.delete(record.build.version)
  }

  #recordFile(version: string): string {
    return join(this.directory, 'versions', `${version}.json`)
  }

  async #dropUnused(): Promise<void> {
    if (this.#unreadable.size > 0) return
    const used = new Set(this.records.flatMap(({ files }) => files.map(({ sha256 }) => sha256)))
    for (const name of await readdir(join(this.directory, 'files'))) {
      if (!used.has(name)) await rm(this.fileOf(name), { force: true })
    }
  }
}

export function noSuchImage(version: string): KitError {
  return new KitError(
    'not-found',
    `Cannot find image ${JSON.stringify(version)}: the store has none of that version`,
    {
      fix: 'kateskit image list',
    },
  )
}
