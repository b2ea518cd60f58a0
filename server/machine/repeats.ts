// Telling once what a machine says again and again.

import type { Mac } from '#lib/mac.ts'

/** More than a server knows machines. When it is full it starts over: the price is an event told twice. */
const MACHINES_MAX = 20_000

export class Repeats {
  readonly #last = new Map<Mac, string>()

  /** Whether it is another text than the last one of this machine. */
  isNews(mac: Mac, text: string): boolean {
    if (this.#last.get(mac) === text) return false
    if (this.#last.size >= MACHINES_MAX) this.#last.clear()
    this.#last.set(mac, text)
    return true
  }

  /** The same text will be news again. */
  forget(mac: Mac): void {
    this.#last.delete(mac)
  }
}
