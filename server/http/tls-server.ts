// The HTTPS side of the service: its certificates, by the name a client asks for, also new ones while it runs.

import { createServer, type Server, type ServerOptions } from 'node:https'
import type { Socket } from 'node:net'
import { createSecureContext, type SecureContext, type SecureContextOptions } from 'node:tls'

import type { TlsMaterial, TlsSource } from '#machine/tls-ports.ts'

/** A handshake must be over by then; Node's own bound is two minutes. */
const HANDSHAKE_TIMEOUT_MS = 15_000

export interface TlsServer {
  readonly server: Server
  /** Ends all connections, and the following of the certificates. */
  end(): void
}

export function createTlsServer(source: TlsSource, options: ServerOptions): TlsServer {
  const contexts = new Map<string, SecureContext>()
  const contextFor = (host: string): SecureContext | undefined => {
    const material = source.materialFor(host)
    if (material === undefined) return undefined
    const context = contexts.get(host) ?? createSecureContext(contextOptions(source, material))
    contexts.set(host, context) // as many as there are names that we have a certificate for
    return context
  }
  const server = createServer({
    ...options,
    ...contextOptions(source, source.material()),
    // People have no certificate and machines none at first: what is asked of whom is for the doors to say.
    requestCert: true,
    rejectUnauthorized: false,
    handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
    SNICallback: (host, done) => {
      try {
        done(null, contextFor(host.toLowerCase()))
      } catch (error) {
        done(error instanceof Error ? error : new Error(String(error)))
      }
    },
  })
  const unfollow = source.onChange(() => {
    contexts.clear()
    server.setSecureContext(contextOptions(source, source.material()))
  })
  const connections = followConnections(server)
  const end = () => {
    unfollow()
    for (const socket of connections) socket.destroy()
  }
  return { server, end }
}

/** `closeAllConnections` knows only those that are through their handshake; `close` waits for the others too. */
function followConnections(server: Server): ReadonlySet<Socket> {
  const connections = new Set<Socket>()
  server.on('connection', (socket: Socket) => {
    connections.add(socket)
    socket.once('close', () => connections.delete(socket))
  })
  return connections
}

function contextOptions({ caPem }: TlsSource, { key, chain }: TlsMaterial): SecureContextOptions {
  return { key, cert: chain, ca: caPem, minVersion: 'TLSv1.2' }
}
