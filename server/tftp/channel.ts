// A transfer's own port: the server's transfer identifier (RFC 1350 §4).

import type { RemoteInfo, Socket } from 'node:dgram'
import { once } from 'node:events'

import { DecodeError } from '#lib/bytes.ts'
import type { Ipv4 } from '#lib/ipv4.ts'
import type { OpenUdp } from '#lib/udp.ts'
import { decodeTftp, encodeTftp, TFTP_ERROR, type TftpPacket } from '#wire/tftp.ts'

import { type Channel, isPeer, type Peer } from './session.ts'

export interface ChannelOptions {
  readonly openUdp: OpenUdp
  /** The address the client asked: it takes answers from no other. */
  readonly address: Ipv4 | undefined
  readonly peer: Peer
  readonly receive: (packet: TftpPacket) => void
  /** A packet could not be sent. The transfer goes on: the timer sends it again. */
  readonly onError: (error: Error) => void
}

export async function openOwnPort(options: ChannelOptions): Promise<Channel> {
  const { openUdp, address, peer, receive, onError } = options
  const socket = await openUdp({ port: 0, ...(address === undefined ? {} : { address }) })
  socket.on('error', onError)
  socket.on('message', (bytes, from) => {
    const packet = findPacket(bytes, from)
    if (packet === undefined) return
    if (isPeer(peer, from)) receive(packet)
    else if (packet.kind !== 'error') refuseStranger(socket, from)
  })
  return {
    send: (parts) => socket.send(parts, peer.port, peer.ip),
    async close() {
      socket.close()
      await once(socket, 'close')
    },
  }
}

/** A packet from another identifier gets an error and disturbs nothing (RFC 1350 §4). */
function refuseStranger(socket: Socket, from: RemoteInfo): void {
  const message = 'This transfer belongs to another client'
  socket.send(
    encodeTftp({ kind: 'error', code: TFTP_ERROR['unknown-transfer'], message }),
    from.port,
    from.address,
  )
}

/**
 * Undefined for bytes that are no TFTP: answering them could only start a quarrel between two servers. And for
 * whatever comes from port 0, which a datagram may have (RFC 768) but nobody can answer: dgram's `send` throws.
 */
export function findPacket(bytes: Uint8Array, from: Pick<RemoteInfo, 'port'>): TftpPacket | undefined {
  if (from.port === 0) return undefined
  try {
    return decodeTftp(bytes)
  } catch (error) {
    if (error instanceof DecodeError) return undefined
    throw error
  }
}
