// Buffers that files are read into, shared by all who send the same part of a file at about the same time.

export interface ChunkPoolOptions {
  readonly chunkBytes: number
  /** How many chunks nobody uses stay for the next one who wants them. */
  readonly idleChunks: number
  /** How many are lent at most before new borrowers are to do with less: one who reads slowly keeps a chunk for hours. */
  readonly lentChunks: number
}

/** Bytes lent until `giveBack`, which is called exactly once. Nobody writes to them. */
export interface Loan {
  readonly bytes: Buffer
  giveBack(): void
}

interface Chunk {
  readonly buffer: Buffer
  readonly loaded: Promise<number>
  users: number
}

export class ChunkPool {
  readonly chunkBytes: number
  readonly #idleMax: number
  readonly #lentMax: number
  /** The one used last is last. */
  readonly #chunks = new Map<string, Chunk>()
  readonly #spare: Buffer[] = []
  #idle = 0

  constructor({ chunkBytes, idleChunks, lentChunks }: ChunkPoolOptions) {
    this.#lentMax = lentChunks
    this.chunkBytes = chunkBytes
    this.#idleMax = idleChunks
  }

  /** How many chunks hold memory: those lent plus at most twice `idleChunks`. */
  get size(): number {
    return this.#chunks.size + this.#spare.length
  }

  /** Lent or idle: borrowing it takes no more memory. */
  has(key: string): boolean {
    return this.#chunks.has(key)
  }

  /** So many slow readers hold chunks that no more should be lent. */
  get isCrowded(): boolean {
    return this.#chunks.size - this.#idle >= this.#lentMax
  }

  /**
   * Lends the chunk called `key`, which `load` fills when it is not there; `load` resolves with how many bytes it
   * wrote. Two keys never share a buffer while one of them is lent. Rejects as `load` does.
   */
  async borrow(key: string, load: (buffer: Buffer) => Promise<number>): Promise<Loan> {
    const known = this.#chunks.get(key)
    const chunk = known ?? this.#add(key, load)
    if (known !== undefined && chunk.users === 0) this.#idle--
    chunk.users++
    try {
      return {
        bytes: chunk.buffer.subarray(0, await chunk.loaded),
        giveBack: () => this.#release(key, chunk),
      }
    } catch (error) {
      if (this.#chunks.get(key) === chunk) this.#chunks.delete(key) // the next one tries again
      throw error
    }
  }

  #add(key: string, load: (buffer: Buffer) => Promise<number>): Chunk {
    const buffer = this.#spare.pop() ?? Buffer.allocUnsafeSlow(this.chunkBytes)
    const chunk: Chunk = { buffer, loaded: load(buffer), users: 0 }
    this.#chunks.set(key, chunk)
    return chunk
  }

  #release(key: string, chunk: Chunk): void {
    chunk.users--
    if (chunk.users > 0) return
    this.#chunks.delete(key)
    this.#chunks.set(key, chunk)
    this.#idle++
    if (this.#idle > this.#idleMax) this.#evictOldest()
  }

  #evictOldest(): void {
    for (const [key, chunk] of this.#chunks) {
      if (chunk.users > 0) continue
      this.#chunks.delete(key)
      this.#idle--
      if (this.#spare.length < this.#idleMax) this.#spare.push(chunk.buffer)
      return
    }
  }
}
