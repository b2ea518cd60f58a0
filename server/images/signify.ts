// Keys and signatures as signify(1) reads them: a comment line, then base64 of "Ed", the key's number and the bytes.

const ALGORITHM = Buffer.from('Ed')
export const KEY_NUMBER_BYTES = 8

interface SignifyFile {
  readonly comment: string
  /** Tells keys apart: the same in a key and in its signatures. */
  readonly keyNumber: Uint8Array
  /** An ed25519 public key (32) or signature (64). */
  readonly bytes: Uint8Array
}

export function signifyText({ comment, keyNumber, bytes }: SignifyFile): string {
  const packed = Buffer.concat([ALGORITHM, keyNumber, bytes])
  return `untrusted comment: ${comment}\n${packed.toString('base64')}\n`
}
