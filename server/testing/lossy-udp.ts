// A UDP link in the middle that loses packets by count, never by chance: for TFTP, whose server answers from new ports.

import { createSocket, type RemoteInfo, type Socket } from 'node:dgram'
import { once } from 'node:events'

export interface LossyLink {
  /** Where clients send their requests instead. */
  readonly port: number
  lost(): number
  close(): Promise<void>
}

/**
 * Relays 127.0.0.1:`port` to 127.0.0.1:`serverPort`. Of what follows a client's first packet, in both directions
 * together, every `loseEvery`th packet is lost. The first must arrive: only the client could repeat it, after seconds.
 */
export async function openLossyLink(serverPort: number, loseEvery: number): Promise<LossyLink> {
  let lost = 0
  let passed = 0
  const isLost = () => {
    if (++passed % loseEvery !== 0) return false
    lost++
    return true
  }
  const entry = await boundSocket()
  const sockets: Socket[] = [entry]
  const clients = new Set<string>()
  entry.on('message', async (request, client) => {
    const key = `${client.address}:${client.port}`
    if (clients.has(key)) return
    clients.add(key)
    const [towardsServer, towardsClient] = [await boundSocket(), await boundSocket()]
    sockets.push(towardsServer, towardsClient)
    let server: RemoteInfo | undefined
    towardsServer.on('message', (bytes, from) => {
      server = from
      if (!isLost()) towardsClient.send(bytes, client.port, client.address)
    })
    towardsClient.on('message', (bytes) => {
      if (server !== undefined && !isLost()) towardsServer.send(bytes, server.port, server.address)
    })
    towardsServer.send(request, serverPort, '127.0.0.1')
  })
  return {
    port: entry.address().port,
    lost: () => lost,
    async close() {
      await Promise.all(sockets.map((socket) => once(socket.close(), 'close')))
    },
  }
}

async function boundSocket(): Promise<Socket> {
  const socket = createSocket('udp4')
  const listening = once(socket, 'listening')
  socket.bind(0, '127.0.0.1')
  await listening
  return socket
}
