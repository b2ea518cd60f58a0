// Addresses by the time their lease ends, earliest first: a binary heap, so that a full pool is not searched per packet.

import type { Ipv4 } from '#lib/ipv4.ts'

export interface Expiry {
  readonly ip: Ipv4
  readonly expiresMs: number
}

export class ExpiryQueue {
  #heap: Expiry[] = []

  get size(): number {
    return this.#heap.length
  }

  clear(): void {
    this.#heap = []
  }

  peek(): Expiry | undefined {
    return this.#heap[0]
  }

  push(entry: Expiry): void {
    const heap = this.#heap
    let at = heap.length
    heap.push(entry)
    while (at > 0) {
      const parent = (at - 1) >> 1
      if (timeAt(heap, parent) <= entry.expiresMs) break
      swap(heap, at, parent)
      at = parent
    }
  }

  pop(): Expiry | undefined {
    const heap = this.#heap
    const top = heap[0]
    const last = heap.pop()
    if (top === undefined || last === undefined || heap.length === 0) return top
    heap[0] = last
    let at = 0
    while (true) {
      const left = 2 * at + 1
      const child = timeAt(heap, left + 1) < timeAt(heap, left) ? left + 1 : left
      if (timeAt(heap, child) >= last.expiresMs) return top
      swap(heap, at, child)
      at = child
    }
  }
}

/** Infinity past the end, so that a missing child never rises. */
function timeAt(heap: readonly Expiry[], at: number): number {
  return heap[at]?.expiresMs ?? Number.POSITIVE_INFINITY
}

function swap(heap: Expiry[], a: number, b: number): void {
  const [atA, atB] = [heap[a], heap[b]]
  if (atA === undefined || atB === undefined) return
  heap[a] = atB
  heap[b] = atA
}
