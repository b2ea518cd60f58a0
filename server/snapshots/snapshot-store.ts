// Snapshots of etcd on this server's disk: each complete or absent, for nobody else to read, removed by count and age.

import { createHash } from 'node:crypto'
import { chmod, mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'

import { syncDirectory, TEMPORARY_PREFIX, temporaryPath } from '#lib/atomic-file.ts'
import type { Clock } from '#lib/clock.ts'
import { describeError, KitError, systemErrorCode } from '#lib/errors.ts'
import { writeAll } from '#lib/file-bytes.ts'
import { createKeyedQueue } from '#lib/keyed-queue.ts'
import type { Log } from '#lib/log.ts'
import type { Service } from '#lib/service.ts'
import type { Snapshot, SnapshotStore } from '#machine/cluster-ports.ts'

import { type PruneRules, superfluous } from './prune.ts'
import { findSnapshotName, formatSnapshotName, isClusterId, type SnapshotName } from './snapshot-name.ts'

export interface SnapshotStoreOptions extends PruneRules {
  /** Its own: whatever is called like a snapshot there is one. */
  readonly directory: string
  /** Of one snapshot; 2 GiB unless given, which is what etcd's own quota is as a rule. */
  readonly maxBytes?: number
  readonly clock: Clock
  readonly log: Log
}

const MAX_BYTES = 2 * 1024 ** 3

/** Empty until it is started. `start` throws KitError for a folder that cannot be used. */
export function createSnapshotStore(options: SnapshotStoreOptions): SnapshotStore & Service {
  return new KeptSnapshots(options)
}

type About = Parameters<SnapshotStore['save']>[1]
type Kept = Snapshot & Pick<SnapshotName, 'number'>

class KeptSnapshots implements SnapshotStore, Service {
  readonly name = 'snapshots'
  readonly #options: SnapshotStoreOptions
  readonly #changes = createKeyedQueue<'change'>()
  /** Newest first. */
  #snapshots: readonly Kept[] = []

  constructor(options: SnapshotStoreOptions) {
    this.#options = options
  }

  async start(): Promise<void> {
    const { directory, log } = this.#options
    try {
      await mkdir(directory, { recursive: true, mode: 0o700 })
      await chmod(directory, 0o700)
      this.#snapshots = await this.#load()
    } catch (cause) {
      throw new KitError(
        'unavailable',
        `Cannot use the folder of etcd's snapshots, ${directory}: ${describeError(cause)}`,
        { fix: 'let the server write to it', cause },
      )
    }
    log.debug({ snapshots: this.#snapshots.length }, "etcd's snapshots are there")
  }

  /** Resolves when nothing is being changed; a snapshot that is still coming in is gone with its connection. */
  async stop(): Promise<void> {
    await this.#changes.run('change', async () => {})
  }

  list(): readonly Snapshot[] {
    return this.#snapshots
  }

  find(sha256: string): Snapshot | undefined {
    return this.#snapshots.find((snapshot) => snapshot.sha256 === sha256)
  }

  async save(content: AsyncIterable<Uint8Array>, about: About): Promise<Snapshot> {
    const { directory } = this.#options
    if (!isClusterId(about.clusterId))
      throw new KitError('invalid-input', 'Cannot keep this snapshot: it is of no cluster')
    const temporary = temporaryPath(directory)
    try {
      const sizeBytes = await this.#write(temporary, content, about.sha256)
      return await this.#changes.run('change', () => this.#keep(temporary, sizeBytes, about))
    } catch (error) {
      await rm(temporary, { force: true })
      throw asSaveError(error, directory)
    }
  }

  async prune(except?: string): Promise<void> {
    const { clock, directory, log } = this.#options
    await this.#changes.run('change', async () => {
      const question = { nowMs: clock.nowMs(), ...(except !== undefined && { except }) }
      for (const snapshot of superfluous(this.#snapshots, this.#options, question)) {
        await rm(snapshot.file, { force: true })
        this.#snapshots = this.#snapshots.filter((each) => each !== snapshot)
        log.debug({ sha256: snapshot.sha256 }, 'an old snapshot of etcd was removed')
      }
      await syncDirectory(directory)
    })
  }

  async #write(file: string, content: AsyncIterable<Uint8Array>, sha256: string): Promise<number> {
    const { maxBytes = MAX_BYTES } = this.#options
    const hash = createHash('sha256')
    let sizeBytes = 0
    const handle = await open(file, 'wx', 0o600)
    try {
      for await (const chunk of content) {
        sizeBytes += chunk.length
        if (sizeBytes > maxBytes) {
          throw new KitError('too-large', `Cannot keep this snapshot: it is larger than ${maxBytes} bytes`)
        }
        hash.update(chunk)
        await writeAll(handle, chunk)
      }
      const digest = hash.digest('hex')
      if (digest !== sha256 || sizeBytes === 0) {
        const why = sizeBytes === 0 ? 'it is empty' : `its sha256 is ${digest}, not ${sha256}`
        throw new KitError('invalid-input', `Cannot keep this snapshot: ${why}`)
      }
      await handle.sync()
    } catch (error) {
      // Its room is free at once: a process that is being forked just now would hold a removed file until it runs its own program.
      await handle.truncate(0).catch(() => {})
      throw error
    } finally {
      await handle.close()
    }
    return sizeBytes
  }

  /** The same content again is the newest now, and there once. */
  async #keep(temporary: string, sizeBytes: number, { clusterId, mac, sha256 }: About): Promise<Snapshot> {
    const { clock, directory } = this.#options
    const number = (this.#snapshots[0]?.number ?? 0) + 1
    const name = { number, takenMs: Math.max(0, Math.round(clock.nowMs())), clusterId, mac, sha256 }
    const file = join(directory, formatSnapshotName(name))
    await rename(temporary, file)
    await syncDirectory(directory)
    const before = this.#snapshots.filter((each) => each.sha256 === sha256)
    const kept = { ...name, sizeBytes, file }
    this.#snapshots = [kept, ...this.#snapshots.filter((each) => !before.includes(each))]
    for (const each of before) await rm(each.file, { force: true })
    return kept
  }

  async #load(): Promise<readonly Kept[]> {
    const { directory } = this.#options
    const found: Kept[] = []
    for (const text of await readdir(directory)) {
      const file = join(directory, text)
      if (text.startsWith(TEMPORARY_PREFIX)) await rm(file, { force: true })
      const name = findSnapshotName(text)
      if (name !== undefined) found.push({ ...name, file, sizeBytes: (await stat(file)).size })
    }
    const newestFirst = found.sort((left, right) => right.number - left.number)
    // Killed between a snapshot that came again and the removal of what it was before.
    const again = newestFirst.filter(
      ({ sha256 }, index) => newestFirst.findIndex((each) => each.sha256 === sha256) < index,
    )
    for (const { file } of again) await rm(file, { force: true })
    return newestFirst.filter((each) => !again.includes(each))
  }
}

function asSaveError(error: unknown, directory: string): unknown {
  const code = systemErrorCode(error)
  if (code !== 'ENOSPC' && code !== 'EDQUOT') return error
  return new KitError('unavailable', `Cannot keep this snapshot: the disk of ${directory} is full`, {
    fix: 'free some space; cluster/snapshots-keep says how many are kept',
    cause: error,
  })
}
