// Work in order per key, side by side across keys: what makes "read, decide, write" on one machine safe.

export interface KeyedQueue<Key> {
  /** Runs `work` after all earlier work of the same key has settled; resolves or rejects with its outcome. */
  run<Result>(key: Key, work: () => Promise<Result>): Promise<Result>
}

export function createKeyedQueue<Key>(): KeyedQueue<Key> {
  const tails = new Map<Key, Promise<unknown>>()
  return {
    run(key, work) {
      const previous = tails.get(key) ?? Promise.resolve()
      const result = previous.then(work, work)
      const tail = result.then(
        () => {},
        () => {},
      )
      tails.set(key, tail)
      // The last one of a key takes the key away, so idle keys cost nothing.
      tail.then(() => {
        if (tails.get(key) === tail) tails.delete(key)
      })
      return result
    },
  }
}
