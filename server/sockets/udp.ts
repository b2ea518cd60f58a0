// Opens the UDP sockets of the front doors, tied to one network interface where asked.

import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'

import { ANY_IPV4 } from '#lib/ipv4.ts'
import type { OpenUdp, UdpOptions } from '#lib/udp.ts'

import { openBoundSocket } from './system-calls.ts'
import { udpError } from './udp-error.ts'

export const openUdp: OpenUdp = async (options) => {
  const socket = createSocket({ type: 'udp4', lookup: literalAddress })
  try {
    if (needsSystemCalls(options)) adopt(socket, await openBoundSocket(options))
    else {
      // Waited for before it is asked: with a synchronous lookup it comes before `bind` returns.
      const listening = once(socket, 'listening')
      socket.bind({ port: options.port, address: options.address ?? ANY_IPV4, exclusive: true })
      await listening
    }
    if (options.broadcast) socket.setBroadcast(true)
    return socket
  } catch (error) {
    socket.close()
    throw udpError(error, options)
  }
}

/** dgram knows neither SO_BINDTODEVICE nor SO_RCVBUFFORCE. */
function needsSystemCalls(options: UdpOptions): boolean {
  return options.networkInterface !== undefined || options.receiveBufferBytes !== undefined
}

/** From here on `socket.close()` closes the descriptor. Synchronous: it is listening when this returns. */
function adopt(socket: Socket, fileDescriptor: number): void {
  socket.bind({ fd: fileDescriptor, exclusive: true })
}

/** dgram asks its resolver before every send; answers at once, since nothing here ever sends to a name. */
function literalAddress(
  address: string,
  _options: unknown,
  callback: (error: NodeJS.ErrnoException | null, address: string, family: number) => void,
): void {
  callback(null, address, 4)
}
