// The bundles on disk: content-addressed archives, and which machine has had which.

import { readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'

import { z } from 'zod'

import { syncDirectory, TEMPORARY_PREFIX, writeFileAtomically } from '#lib/atomic-file.ts'
import type { Clock } from '#lib/clock.ts'
import { systemErrorCode } from '#lib/errors.ts'
import type { Log } from '#lib/log.ts'
import { findMac, type Mac } from '#lib/mac.ts'
import type { Bundle } from '#machine/ports.ts'

import { createJoinedWork } from './joined-work.ts'
import type { PackedArchive } from './pack.ts'

export interface BundleStoreOptions {
  /** Must exist. */
  readonly directory: string
  readonly clock: Clock
  readonly log: Log
  /** A bundle nobody has any more is kept this long: a boot that has begun names it. */
  readonly graceMs: number
}

/** By MAC: the layers the current bundle was made of; the current digest, then the one before. */
const INDEX_SHAPE = z.record(
  z.string(),
  z.object({ layersKey: z.string(), digests: z.array(z.string().regex(/^[0-9a-f]{64}$/)) }),
)

type History = z.output<typeof INDEX_SHAPE>[string]

const INDEX_FILE = 'machines.json'
const ARCHIVE = /^([0-9a-f]{64})\.tar$/

/** Reads what an earlier run left; unfinished archives are removed. */
export async function openBundleStore(options: BundleStoreOptions): Promise<BundleStore> {
  const names = await readdir(options.directory)
  const left = names.filter((name) => name.startsWith(TEMPORARY_PREFIX))
  await Promise.all(left.map((name) => rm(join(options.directory, name), { force: true })))
  const archives = names.flatMap((name) => ARCHIVE.exec(name)?.[1] ?? [])
  return new BundleStore(options, await readIndex(options), archives)
}

export class BundleStore {
  readonly #options: BundleStoreOptions
  readonly #machines: Map<Mac, History>
  /** The newest good bundle of each list of layers. */
  readonly #lastGood: Map<string, string>
  /** Archives that no machine has any more, and since when. */
  readonly #retired: Map<string, number>
  /** The index on disk is not what it should be. */
  #isUnsaved = false
  /** Many machines change at once: one writing serves them all. */
  readonly #save = createJoinedWork<void, void>(
    () => INDEX_FILE,
    () => this.#writeIndex(),
  )

  constructor(options: BundleStoreOptions, machines: Map<Mac, History>, archives: readonly string[]) {
    this.#options = options
    this.#machines = machines
    const used = this.#usedDigests()
    this.#retired = new Map(
      archives.filter((digest) => !used.has(digest)).map((digest) => [digest, options.clock.nowMs()]),
    )
    this.#lastGood = new Map(
      [...machines.values()].flatMap(({ layersKey, digests: [current] }) =>
        current === undefined ? [] : [[layersKey, current]],
      ),
    )
  }

  async find(digest: string): Promise<Bundle | undefined> {
    if (!/^[0-9a-f]{64}$/.test(digest)) return undefined
    const file = this.#fileOf(digest)
    try {
      const { size: sizeBytes } = await stat(file)
      // Whoever asks is about to use it: it must not be taken away while it is fetched, or given to a machine again.
      if (this.#retired.has(digest)) this.#retired.set(digest, this.#options.clock.nowMs())
      return { digest, sizeBytes, file }
    } catch (error) {
      if (systemErrorCode(error) === 'ENOENT') return undefined
      throw error
    }
  }

  /** Gives the archive its name; it is on disk for good when it resolves. */
  async take({ file, digest, sizeBytes }: PackedArchive): Promise<Bundle> {
    this.#retired.delete(digest)
    await rename(file, this.#fileOf(digest))
    await syncDirectory(this.#options.directory)
    return { digest, sizeBytes, file: this.#fileOf(digest) }
  }

  async findLastGood(layersKey: string): Promise<Bundle | undefined> {
    const digest = this.#lastGood.get(layersKey)
    return digest === undefined ? undefined : this.find(digest)
  }

  /** Removes every archive that no machine has; false when there was none. For when the disk is full. */
  async dropRetired(): Promise<boolean> {
    const dropped = await this.#collectGarbage(Number.NEGATIVE_INFINITY)
    return dropped > 0
  }

  /** Returns the digest the machine had before, undefined when it had none. */
  async record(mac: Mac, layersKey: string, digest: string): Promise<string | undefined> {
    this.#lastGood.set(layersKey, digest)
    const { layersKey: oldKey, digests = [] } = this.#machines.get(mac) ?? {}
    if (digests[0] === digest && oldKey === layersKey && !this.#isUnsaved) return digest
    const kept = [digest, ...digests.filter((other) => other !== digest)].slice(0, 2)
    this.#machines.set(mac, { layersKey, digests: kept })
    for (const old of digests) if (!kept.includes(old)) this.#retire(old)
    await this.#save()
    return digests[0]
  }

  #retire(digest: string): void {
    if (!this.#retired.has(digest)) this.#retired.set(digest, this.#options.clock.nowMs())
  }

  #fileOf(digest: string): string {
    return join(this.#options.directory, `${digest}.tar`)
  }

  /** Never throws: without an index only a restart would forget earlier bundles, and no machine shall wait for that. */
  async #writeIndex(): Promise<void> {
    const { directory, graceMs, log } = this.#options
    const text = JSON.stringify(Object.fromEntries(this.#machines), undefined, 1)
    try {
      await writeFileAtomically(join(directory, INDEX_FILE), `${text}\n`)
      this.#isUnsaved = false
    } catch (error) {
      this.#isUnsaved = true
      log.warn(
        { err: error },
        `Cannot write ${INDEX_FILE} in ${directory}: it is tried again at the next question`,
      )
    }
    await this.#collectGarbage(graceMs)
  }

  /** A new archive that is not yet any machine's is not retired, so it cannot be taken away in between. */
  async #collectGarbage(graceMs: number): Promise<number> {
    const { clock, log } = this.#options
    const used = this.#usedDigests()
    let dropped = 0
    for (const [digest, sinceMs] of this.#retired) {
      if (used.has(digest)) this.#retired.delete(digest)
      // Either way: a clock that was set back must not keep it for ever.
      else if (Math.abs(clock.nowMs() - sinceMs) >= graceMs) {
        this.#retired.delete(digest)
        dropped += 1
        await rm(this.#fileOf(digest), { force: true }).catch((error: unknown) =>
          log.warn({ err: error, digest }, 'Cannot remove an old overlay bundle'),
        )
      }
    }
    return dropped
  }

  #usedDigests(): ReadonlySet<string> {
    return new Set([...this.#machines.values()].flatMap(({ digests }) => digests))
  }
}

/** A broken index costs only the memory of earlier bundles, so it stops nothing. */
async function readIndex({ directory, log }: BundleStoreOptions): Promise<Map<Mac, History>> {
  const file = join(directory, INDEX_FILE)
  try {
    const index = INDEX_SHAPE.parse(JSON.parse(await readFile(file, 'utf8')))
    return new Map(
      Object.entries(index).flatMap(([text, history]) => {
        const mac = findMac(text)
        return mac === undefined ? [] : [[mac, history]]
      }),
    )
  } catch (error) {
    if (systemErrorCode(error) !== 'ENOENT')
      log.warn({ err: error }, `Cannot read ${file}: earlier bundles are forgotten`)
    return new Map()
  }
}
