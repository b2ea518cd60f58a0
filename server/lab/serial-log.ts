// What a machine has said on its serial console: QEMU's log file, followed as it grows.

import { type FSWatcher, watch } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'

import { KitError } from '#lib/errors.ts'

/** Colours, cursor movement and carriage returns, which firmware and systemd write freely. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: terminals speak in control characters
const TERMINAL_CODES = /\x1b\[[0-9;?=]*[A-Za-z]|\x1b[()][A-Z0-9]|\r/g

/** How much of the console a failure shows. */
const TAIL_LINES = 25

interface Waiter {
  readonly pattern: RegExp
  readonly from: number
  readonly found: (match: RegExpExecArray) => void
}

export class SerialLog {
  readonly #file: string
  #text = ''
  #offset: number
  #watcher: FSWatcher | undefined
  #handle: FileHandle | undefined
  #reading: Promise<void> = Promise.resolve()
  readonly #waiters = new Set<Waiter>()
  readonly #listeners = new Set<() => void>()

  /** The file must exist; `follow` starts to read it, from `offset` on: before it is what earlier starts said. */
  constructor(file: string, offset = 0) {
    this.#file = file
    this.#offset = offset
  }

  async follow(): Promise<void> {
    this.#handle = await open(this.#file, 'r')
    this.#watcher = watch(this.#file, () => this.#readSoon())
    this.#readSoon()
  }

  /** Everything so far, without terminal codes. */
  get text(): string {
    return this.#text
  }

  tail(lines = TAIL_LINES): string {
    return this.#text.trimEnd().split('\n').slice(-lines).join('\n')
  }

  /** The first match, in what was said before the call too unless `from` (a length of `text`) says otherwise. */
  waitFor(pattern: RegExp, timeoutMs: number, from = 0): Promise<RegExpExecArray> {
    return new Promise((resolve, reject) => {
      const waiter: Waiter = {
        pattern: new RegExp(pattern, pattern.flags.replace(/[gy]/g, '')), // those would keep a position
        from,
        found: (match) => {
          clearTimeout(timer)
          this.#waiters.delete(waiter)
          resolve(match)
        },
      }
      const timer = setTimeout(() => {
        this.#waiters.delete(waiter)
        reject(
          new KitError(
            'unavailable',
            `Cannot find ${pattern} on the serial console within ${timeoutMs / 1000} s; it ends with:\n${this.tail()}`,
          ),
        )
      }, timeoutMs)
      this.#waiters.add(waiter)
      this.#offer(waiter)
    })
  }

  /** Calls `listener` when there is more to read; the returned function ends it. */
  onGrowth(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => void this.#listeners.delete(listener)
  }

  /** Reads what is left first. */
  async stop(): Promise<void> {
    this.#watcher?.close()
    this.#readSoon()
    await this.#reading
    await this.#handle?.close()
    this.#handle = undefined
  }

  #readSoon(): void {
    this.#reading = this.#reading.then(() => this.#read())
  }

  async #read(): Promise<void> {
    const buffer = Buffer.alloc(64 * 1024)
    const before = this.#offset
    for (;;) {
      const result = await this.#handle?.read(buffer, 0, buffer.length, this.#offset)
      if (!result?.bytesRead) break
      this.#offset += result.bytesRead
      this.#text += buffer.toString('latin1', 0, result.bytesRead)
    }
    // A code may have been cut by the end of the last read, so the whole text is cleaned, not the piece.
    this.#text = this.#text.replace(TERMINAL_CODES, '')
    if (this.#offset === before) return
    for (const waiter of this.#waiters) this.#offer(waiter)
    for (const listener of this.#listeners) listener()
  }

  #offer(waiter: Waiter): void {
    const match = waiter.pattern.exec(this.#text.slice(waiter.from))
    if (match !== null) waiter.found(match)
  }
}
