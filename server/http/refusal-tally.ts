// Refusals in the audit log: the first of a kind at once, those that follow within a minute as one entry with their count.
// Whoever is refused has proved nothing: what floods us must not fill the disk.

import type { Clock } from '#lib/clock.ts'
import type { Log } from '#lib/log.ts'
import type { AuditLog, NewAuditEntry } from '#machine/access-ports.ts'

const WINDOW_MS = 60_000
/** Beyond so many at once, the rest is counted together. */
const KEYS_MAX = 32
const REST = 'rest'

interface Window {
  /** The newest one that was only counted. */
  last: NewAuditEntry
  uncounted: number
  cancel: () => void
}

interface TallyOptions {
  readonly audit: Pick<AuditLog, 'append'>
  readonly clock: Clock
  readonly log: Log
}

export class RefusalTally {
  readonly #options: TallyOptions
  readonly #windows = new Map<string, Window>()
  readonly #writing = new Set<Promise<unknown>>()
  #isStopped = false

  constructor(options: TallyOptions) {
    this.#options = options
  }

  /** Refusals of the same `key` are counted together. Returns whether this one was written by itself. */
  note(key: string, entry: NewAuditEntry): boolean {
    if (this.#isStopped) return false
    const isKnown = this.#windows.has(key)
    const isRest = !isKnown && this.#windows.size >= KEYS_MAX
    const [ownKey, own] = isRest ? [REST, { ...entry, actor: 'anonymous (many)' }] : [key, entry]
    const window = this.#windows.get(ownKey)
    if (window !== undefined) {
      window.last = own
      window.uncounted += 1
      return false
    }
    this.#open(ownKey, own)
    this.#write(own)
    return true
  }

  /** Writes what was counted; resolves when it is on disk. Nothing is noted afterwards. */
  async stop(): Promise<void> {
    this.#isStopped = true
    for (const window of this.#windows.values()) {
      window.cancel()
      this.#writeCount(window)
    }
    this.#windows.clear()
    await Promise.all(this.#writing)
  }

  #open(key: string, last: NewAuditEntry): void {
    const cancel = this.#options.clock.after(WINDOW_MS, () => this.#close(key))
    this.#windows.set(key, { last, uncounted: 0, cancel })
  }

  /** While it goes on, there is one entry a minute. */
  #close(key: string): void {
    const window = this.#windows.get(key)
    this.#windows.delete(key)
    if (window === undefined || window.uncounted === 0) return
    this.#writeCount(window)
    this.#open(key, window.last)
  }

  #writeCount({ last, uncounted }: Window): void {
    if (uncounted > 0) this.#write({ ...last, detail: `${last.detail}; ${uncounted} such within a minute` })
  }

  #write(entry: NewAuditEntry): void {
    const { audit, log } = this.#options
    const written = audit
      .append(entry)
      .catch((error: unknown) => log.error({ err: error }, 'Cannot write down a refusal'))
      .finally(() => this.#writing.delete(written))
    this.#writing.add(written)
  }
}
