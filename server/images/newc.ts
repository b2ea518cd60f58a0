// The archive format of the kernel's initial file systems, cpio "newc" (Linux: Documentation/driver-api/early-userspace/buffer-format.rst).

const MAGIC = '070701'

export interface ArchivedFile {
  /** Without a slash at the front; the folders on the way must be there when it is unpacked. */
  readonly name: string
  readonly content: Uint8Array
}

/** The same files give the same bytes: owned by root, mode 0644, dated 1970. The length is a multiple of four. */
export function packNewc(files: readonly ArchivedFile[]): Buffer {
  const parts = files.flatMap(({ name, content }, index) => [
    header(name, { inode: index + 1, mode: 0o100_644, links: 1, sizeBytes: content.length }),
    padded(content),
  ])
  return Buffer.concat([...parts, header('TRAILER!!!', { inode: 0, mode: 0, links: 1, sizeBytes: 0 })])
}

interface HeaderFields {
  readonly inode: number
  readonly mode: number
  readonly links: number
  readonly sizeBytes: number
}

function header(name: string, { inode, mode, links, sizeBytes }: HeaderFields): Buffer {
  const nameBytes = Buffer.byteLength(name) + 1
  const [uid, gid, mtime, device, check] = [0, 0, 0, 0, 0]
  const fields = [inode, mode, uid, gid, links, mtime, sizeBytes]
  const numbers = [...fields, device, device, device, device, nameBytes, check]
  const hex = numbers.map((number) => number.toString(16).padStart(8, '0')).join('')
  return padded(Buffer.from(`${MAGIC}${hex}${name}\0`))
}

function padded(bytes: Uint8Array): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(paddingTo4(bytes.length))])
}

/** How many bytes are missing to a multiple of four, where the next archive may begin. */
export function paddingTo4(length: number): number {
  return (4 - (length % 4)) % 4
}
