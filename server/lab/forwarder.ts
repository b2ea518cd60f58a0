// The way from the host's loopback into the lab: a TCP port that leads to the server's unix socket.

import { connect, createServer, type Server, type Socket } from 'node:net'

import { KitError, systemErrorCode } from '#lib/errors.ts'
import type { Service } from '#lib/service.ts'

export interface ForwarderOptions {
  /** On 127.0.0.1; 0 picks a free one. */
  readonly port: number
  /** A socket of the server where a token is needed: every user of this host can reach the port. */
  readonly socketPath: string
}

export interface Forwarder extends Service {
  /** The port that was opened; call it after `start`. */
  port(): number
}

export function createForwarder(options: ForwarderOptions): Forwarder {
  const open = new Set<Socket>()
  const server: Server = createServer((near) => join(near, connect(options.socketPath), open))
  return {
    name: 'forwarder',
    port() {
      const address = server.address()
      return typeof address === 'object' && address !== null ? address.port : options.port
    },
    start: () =>
      new Promise((resolve, reject) => {
        server.once('error', (error) => reject(cannotListen(options.port, error)))
        server.listen(options.port, '127.0.0.1', resolve)
      }),
    stop: () =>
      new Promise((resolve) => {
        for (const socket of open) socket.destroy()
        server.close(() => resolve()) // also called back, with an error, when it never listened
      }),
  }
}

/** Throws KitError `conflict` when the port is taken now. */
export async function checkPort(port: number): Promise<void> {
  const trial = createForwarder({ port, socketPath: '' }) // stopped before anybody can connect
  try {
    await trial.start()
  } finally {
    await trial.stop()
  }
}

/** Either end that fails or closes takes the other with it. */
function join(near: Socket, far: Socket, open: Set<Socket>): void {
  const both: readonly [Socket, Socket][] = [
    [near, far],
    [far, near],
  ]
  for (const [from, to] of both) {
    open.add(from)
    from.on('error', () => {}) // 'close' follows
    from.on('close', () => {
      open.delete(from)
      to.destroy()
    })
    from.pipe(to)
  }
}

function cannotListen(port: number, error: Error): KitError {
  if (systemErrorCode(error) !== 'EADDRINUSE') {
    return new KitError('unavailable', `Cannot open port ${port} on 127.0.0.1: ${error.message}`, {
      cause: error,
    })
  }
  return new KitError('conflict', `Cannot open port ${port} on 127.0.0.1: another program uses it`, {
    fix: `choose another one: npm start -- --port ${port + 1}`,
  })
}
