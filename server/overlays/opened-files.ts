// Secret files that were opened: in memory only, bounded, and each opened once for all machines that have it.

import { createHash } from 'node:crypto'

import { describeError } from '#lib/errors.ts'
import type { SecretsKey } from '#machine/secret-ports.ts'

import { type FileEntry, type FileStats, isSameFile } from './entries.ts'
import { createJoinedWork } from './joined-work.ts'
import { SourceChangedError, withSource } from './source-file.ts'

export interface OpenedFilesOptions {
  readonly key: Pick<SecretsKey, 'open'>
  /** Of one file, opened. */
  readonly fileBytes: number
  /** Of all that is kept; what was asked for longest ago is opened anew. */
  readonly keptBytes: number
}

/** With a problem, `content` is the last good one, when there is one. */
export interface OpenedFile {
  readonly content?: Uint8Array
  readonly problem?: string
}

interface Kept {
  /** As the file was when it was read; undefined when it may have changed since without another time stamp. */
  readonly stats: FileStats | undefined
  readonly sealedSha256: string
  readonly content: Uint8Array
}

/** A header, and 16 bytes for each 64 KiB (age-encryption.org/v1); as text a third more, with a newline every 64 bytes. */
const SEALED_RATIO = 1.4
const HEADER_BYTES = 16 * 1024

/** The coarsest tick of a file system in use: a file can be written twice within one (git: "racily clean"). */
const TICK_MS = 2000

export class OpenedFiles {
  readonly #options: OpenedFilesOptions
  /** By where it lies; the one that was asked for last is last. */
  readonly #kept = new Map<string, Kept>()
  #keptBytes = 0
  /** Never throws but SourceChangedError: the layer must be read again. */
  readonly open = createJoinedWork(
    ({ entry }: { entry: FileEntry; nowMs: number }) => entry.source,
    (question) => this.#open(question.entry, question.nowMs),
  )

  constructor(options: OpenedFilesOptions) {
    this.#options = options
  }

  /** Forgets all others: what is gone from the tree must not come back as the last good content. */
  keepOnly(sources: ReadonlySet<string>): void {
    for (const source of this.#kept.keys()) if (!sources.has(source)) this.#forget(source)
  }

  async #open(entry: FileEntry, nowMs: number): Promise<OpenedFile> {
    const { source, stats } = entry
    const kept = this.#kept.get(source)
    if (kept?.stats && isSameFile(kept.stats, stats)) {
      this.#keep(source, kept)
      return { content: kept.content }
    }
    try {
      const sealed = await this.#read(entry)
      const sealedSha256 = createHash('sha256').update(sealed).digest('hex')
      const content = sealedSha256 === kept?.sealedSha256 ? kept.content : await this.#unseal(sealed)
      const isSettled = Math.max(stats.mtimeMs, stats.ctimeMs) < nowMs - TICK_MS
      this.#keep(source, { stats: isSettled ? stats : undefined, sealedSha256, content })
      return { content }
    } catch (error) {
      if (error instanceof SourceChangedError) throw error
      const problem = describeError(error)
      return kept === undefined ? { problem } : { problem, content: kept.content }
    }
  }

  async #read(entry: FileEntry): Promise<Uint8Array> {
    if (entry.stats.size > this.#options.fileBytes * SEALED_RATIO + HEADER_BYTES) throw this.#tooLarge()
    return withSource(entry, (handle) => handle.readFile())
  }

  async #unseal(sealed: Uint8Array): Promise<Uint8Array> {
    const content = await this.#options.key.open(sealed)
    if (content.length > this.#options.fileBytes) throw this.#tooLarge()
    return content
  }

  #tooLarge(): Error {
    return new Error(`it is larger than ${this.#options.fileBytes} bytes, the most a secret file may have`)
  }

  #keep(source: string, kept: Kept): void {
    this.#forget(source)
    this.#kept.set(source, kept)
    this.#keptBytes += kept.content.length
    for (const oldest of this.#kept.keys()) {
      if (this.#keptBytes <= this.#options.keptBytes) break
      this.#forget(oldest)
    }
  }

  #forget(source: string): void {
    this.#keptBytes -= this.#kept.get(source)?.content.length ?? 0
    this.#kept.delete(source)
  }
}
