// Following the objects at one path of the API: listed, then watched, and listed again where the watch cannot go on.

import type { Clock } from '#lib/clock.ts'
import type { KitError } from '#lib/errors.ts'

import { asKitError, statusOf } from './api-errors.ts'
import type { Connection, Query, Watching } from './connection.ts'

/** What of an object is needed here, and all that is certain about what comes over the wire. */
export interface WatchedObject {
  readonly metadata?: { readonly name?: string; readonly uid?: string; readonly resourceVersion?: string }
}

export interface Follower {
  /** Tries now what waits for its time. */
  retryNow(): void
  /** Nothing is heard from it afterwards. */
  stop(): void
}

export interface FollowOptions<Item extends WatchedObject> {
  readonly clock: Clock
  readonly path: string
  readonly query?: Query
  /** All of them by their uid, after each list and each change. Must not be kept. */
  readonly onItems: (items: ReadonlyMap<string, Item>) => void
  /** `undefined`: they are up to date, and stay so. Called again with each try that fails. */
  readonly onState?: (problem: KitError | undefined) => void
}

/** Between tries, doubled with each. */
const WAIT_MS = { first: 500, most: 15_000 }
/** A watch that ends sooner than this was none. */
const SHORT_MS = 1_000
/** Five minutes: then the server ends the watch, and another one asks for what is new. */
const WATCH_QUERY = { allowWatchBookmarks: 'true', timeoutSeconds: '300' }
/** The API knows no more what happened since: what it has has to be asked for anew. */
const GONE = 410

export function follow<Item extends WatchedObject>(
  connection: Connection,
  options: FollowOptions<Item>,
): Follower {
  const following = new Following(connection, options)
  following.retryNow()
  return following
}

class Following<Item extends WatchedObject> implements Follower {
  readonly #connection: Connection
  readonly #options: FollowOptions<Item>
  #items = new Map<string, Item>()
  #version = ''
  #failures = 0
  #isStopped = false
  /** What is going on: a later step makes an earlier one's answer count for nothing. */
  #step = 0
  #watching: Watching | undefined
  #cancelWait: (() => void) | undefined

  constructor(connection: Connection, options: FollowOptions<Item>) {
    this.#connection = connection
    this.#options = options
  }

  retryNow(): void {
    if (this.#isStopped || (this.#step > 0 && this.#cancelWait === undefined)) return
    void this.#list()
  }

  stop(): void {
    this.#isStopped = true
    this.#begin()
  }

  /** Ends what went on before. */
  #begin(): number {
    this.#cancelWait?.()
    this.#cancelWait = undefined
    this.#watching?.stop()
    this.#watching = undefined
    this.#step += 1
    return this.#step
  }

  async #list(): Promise<void> {
    const step = this.#begin()
    try {
      const { path, query = {} } = this.#options
      const list = readList<Item>(await this.#connection.get(path, query))
      if (step !== this.#step) return
      this.#items = new Map(list.items.map((item) => [keyOf(item), item]))
      this.#version = list.version
    } catch (error) {
      if (step === this.#step) this.#fail(error)
      return
    }
    this.#failures = 0
    this.#options.onItems(this.#items)
    // A listener may have stopped it.
    if (step !== this.#step) return
    this.#options.onState?.(undefined)
    if (step === this.#step) this.#watch()
  }

  #watch(): void {
    const step = this.#begin()
    const { path, query = {}, clock } = this.#options
    const sinceMs = clock.monotonicMs()
    const asked = { ...query, ...WATCH_QUERY, resourceVersion: this.#version }
    this.#watching = this.#connection.watch(path, asked, {
      event: (type, object) => {
        if (step === this.#step) this.#hear(type, object)
      },
      ended: (how) => {
        if (step !== this.#step) return
        if (how.kind === 'failed') this.#recover(how.error)
        else if (how.kind === 'quiet') void this.#checkQuiet()
        else if (clock.monotonicMs() - sinceMs < SHORT_MS) this.#waitThen(() => void this.#list())
        else this.#watch()
      },
    })
  }

  #hear(type: string, object: unknown): void {
    if (type === 'ERROR') {
      this.#recover(statusError(object))
      return
    }
    const item = object as Item
    this.#version = item.metadata?.resourceVersion ?? this.#version
    if (type === 'BOOKMARK') return
    if (type === 'DELETED') this.#items.delete(keyOf(item))
    else this.#items.set(keyOf(item), item)
    this.#options.onItems(this.#items)
  }

  /** A small question, whose answer says whether the watch can go on. */
  async #checkQuiet(): Promise<void> {
    const step = this.#begin()
    try {
      await this.#connection.get('/version', {})
    } catch (error) {
      if (step === this.#step) this.#fail(error)
      return
    }
    if (step === this.#step) this.#watch()
  }

  #recover(error: unknown): void {
    if (statusOf(error) === GONE) void this.#list()
    else this.#fail(error)
  }

  #fail(error: unknown): void {
    const step = this.#begin()
    this.#options.onState?.(asKitError(`follow ${this.#options.path} of the cluster`, error))
    if (step !== this.#step) return
    if (this.#connection.closing.aborted) this.stop()
    else this.#waitThen(() => void this.#list())
  }

  #waitThen(action: () => void): void {
    this.#begin()
    const delayMs = Math.min(WAIT_MS.first * 2 ** this.#failures, WAIT_MS.most)
    this.#failures += 1
    this.#cancelWait = this.#options.clock.after(delayMs, action)
  }
}

function readList<Item extends WatchedObject>(value: unknown): { items: readonly Item[]; version: string } {
  const { items, metadata } = value as { items?: unknown; metadata?: { resourceVersion?: unknown } }
  const version = metadata?.resourceVersion
  if (!Array.isArray(items) || typeof version !== 'string') throw new TypeError('the answer is no list')
  return { items, version }
}

function keyOf(item: WatchedObject): string {
  return item.metadata?.uid ?? ''
}

/** A Status in a watch stands for what would have been the answer's own. */
function statusError(object: unknown): Error {
  const { code, message } = object as { code?: unknown; message?: unknown }
  return Object.assign(new Error(String(message)), { statusCode: typeof code === 'number' ? code : 500 })
}
