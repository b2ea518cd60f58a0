// Bounds-checked reading of bytes that came from the network.

/** The only thing a codec throws, on any input. */
export class DecodeError extends Error {
  constructor(message: string) {
    super(message)
    this.name = 'DecodeError'
  }
}

/** A cursor over bytes. Every read past the end throws DecodeError. Views share the input's memory. */
export class ByteReader {
  readonly #bytes: Uint8Array
  #offset = 0

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
  }

  get remaining(): number {
    return this.#bytes.length - this.#offset
  }

  take(length: number, what: string): Uint8Array {
    if (length > this.remaining) {
      throw new DecodeError(`${what}: ${length} bytes wanted at ${this.#offset}, ${this.remaining} left`)
    }
    const start = this.#offset
    this.#offset += length
    return this.#bytes.subarray(start, this.#offset)
  }

  uint8(what: string): number {
    return this.take(1, what)[0] ?? 0
  }

  uint16(what: string): number {
    return readUint16(this.take(2, what))
  }

  uint32(what: string): number {
    return readUint32(this.take(4, what))
  }

  rest(): Uint8Array {
    return this.take(this.remaining, 'rest')
  }
}

/** Big-endian, from the first two bytes. */
export function readUint16(bytes: Uint8Array): number {
  return ((bytes[0] ?? 0) << 8) | (bytes[1] ?? 0)
}

/** Big-endian and unsigned, from the first four bytes. */
export function readUint32(bytes: Uint8Array): number {
  return readUint16(bytes) * 0x10000 + readUint16(bytes.subarray(2))
}

export function uint16Bytes(value: number): Uint8Array {
  return Uint8Array.of((value >>> 8) & 0xff, value & 0xff)
}

export function uint32Bytes(value: number): Uint8Array {
  return Uint8Array.of((value >>> 24) & 0xff, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff)
}

/** One byte a character, as the boot protocols write their names. */
export function latin1(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1')
}
