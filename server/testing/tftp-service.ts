// The TFTP service with files made up for tests, and a client that says exactly what it is told to.

import { createSocket, type Socket } from 'node:dgram'
import { on, once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import type { ExecutionContext } from 'ava'

import { systemClock } from '#lib/clock.ts'
import { parseIpv4 } from '#lib/ipv4.ts'
import { silentLog } from '#lib/log.ts'
import { openUdp } from '#sockets/udp.ts'
import { createTftpService, type TftpService, type TftpServiceOptions } from '#tftp/service.ts'
import { decodeTftp, encodeTftp, type TftpPacket } from '#wire/tftp.ts'

export const LOOPBACK = parseIpv4('127.0.0.1')

/** Bytes that no two blocks have in common, whatever the block size. */
function content(sizeBytes: number): Buffer {
  const words = Buffer.alloc(Math.ceil(sizeBytes / 4) * 4)
  for (let at = 0; at < words.length; at += 4) words.writeUInt32BE((at * 2_654_435_761) >>> 0, at)
  return words.subarray(0, sizeBytes)
}

export const FILES: Readonly<Record<string, Uint8Array>> = {
  'snponly.efi': content(284_672),
  'empty.bin': content(0),
  'whole-blocks.bin': content(512 * 7),
  'lossy.bin': content(80_000),
  'many-blocks.bin': content(8 * 70_000),
  'megabyte.bin': content(1 << 20),
}

/** Serves `FILES` on loopback until the test ends. */
export async function serveTftp(
  t: ExecutionContext,
  overrides: Partial<TftpServiceOptions> = {},
): Promise<TftpService> {
  const service = createTftpService({
    port: 0,
    address: LOOPBACK,
    lookup: async (name) => (Object.hasOwn(FILES, name) ? FILES[name] : undefined),
    openUdp,
    clock: systemClock,
    log: silentLog,
    ...overrides,
  })
  await service.start()
  t.teardown(() => service.stop())
  return service
}

/** A folder that is gone when the test has ended. */
export async function scratch(t: ExecutionContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'kit-tftp-'))
  t.teardown(() => rm(folder, { recursive: true }))
  return folder
}

/** A client that says exactly what it is told to. */
export class RawClient {
  readonly #socket: Socket
  readonly #messages: NodeJS.AsyncIterator<unknown[]>

  private constructor(socket: Socket) {
    this.#socket = socket
    this.#messages = on(socket, 'message')
  }

  static async open(t: ExecutionContext): Promise<RawClient> {
    const socket = createSocket('udp4')
    const listening = once(socket, 'listening')
    socket.bind(0, '127.0.0.1')
    await listening
    t.teardown(() => socket.close())
    return new RawClient(socket)
  }

  send(packet: TftpPacket | Uint8Array, port: number): void {
    this.#socket.send(packet instanceof Uint8Array ? packet : encodeTftp(packet), port, '127.0.0.1')
  }

  async next(): Promise<{ packet: TftpPacket; port: number }> {
    const { value } = await this.#messages.next()
    const [bytes, from] = value as [Buffer, { port: number }]
    return { packet: decodeTftp(bytes), port: from.port }
  }
}

export const read = (
  name: string,
  options: Readonly<Record<string, string>> = {},
  mode = 'octet',
): TftpPacket => ({
  kind: 'read',
  name,
  mode,
  options: new Map(Object.entries(options)),
})
