// Imports of images that end in a channel: what becomes of the promotion that follows, for whoever asks how it goes.

import type { KitError } from '#lib/errors.ts'
import type { Log } from '#lib/log.ts'
import type { ImageStore, ImportProgress } from '#machine/ports.ts'
import type { Releases } from '#machine/release-ports.ts'

import { toKitError } from './exchange.ts'

/** Of failures that nobody asked about, the newest. */
const FAILURES_MAX = 100

interface Promotion {
  readonly channel: string
  readonly failure?: KitError
}

export class Imports {
  readonly #log: Log
  readonly #promotions = new Map<string, Promotion>()

  constructor(log: Log) {
    this.#log = log
  }

  start(source: string, store: ImageStore, then?: { channel: string; releases: Releases }): string {
    const id = store.startImport(source)
    if (then !== undefined) {
      this.#promotions.set(id, { channel: then.channel })
      void this.#promote(id, store, then)
    }
    return id
  }

  /** Undefined for an id that was never given. */
  progress(id: string, store: ImageStore): ImportProgress | undefined {
    const progress = store.importProgress(id)
    const promotion = this.#promotions.get(id)
    if (progress?.state !== 'done' || promotion === undefined) return progress
    const { channel, failure } = promotion
    const text = `${progress.version} is here; ${channel} does not point at it`
    if (failure === undefined) return { state: 'running', percent: 99, text: `promoting to ${channel}` }
    const { message, fix } = failure
    return { state: 'failed', percent: 100, text, error: message, ...(fix !== undefined && { fix }) }
  }

  async #promote(
    id: string,
    store: ImageStore,
    { channel, releases }: { channel: string; releases: Releases },
  ): Promise<void> {
    try {
      await releases.promote(await store.importDone(id), channel)
      this.#promotions.delete(id)
    } catch (error) {
      // That of the import itself is in its progress already.
      this.#log.warn({ err: error, channel }, 'an imported image was not promoted')
      this.#promotions.set(id, { channel, failure: toKitError(error) })
      this.#forgetOldest()
    }
  }

  #forgetOldest(): void {
    const failed = [...this.#promotions].filter(([, { failure }]) => failure !== undefined)
    for (const [id] of failed.slice(0, -FAILURES_MAX)) this.#promotions.delete(id)
  }
}
