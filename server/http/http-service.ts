// The HTTP front door as a service: its sockets, their limits, and how it stops.

import { createServer, type IncomingMessage, type Server, type ServerOptions } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { TLSSocket } from 'node:tls'

import type { Clock } from '#lib/clock.ts'
import type { Ipv4 } from '#lib/ipv4.ts'
import type { Log } from '#lib/log.ts'
import type { Mac } from '#lib/mac.ts'
import type { Service } from '#lib/service.ts'
import type { NodeDesk } from '#machine/cluster-ports.ts'
import type { IdentityDesk } from '#machine/identity-ports.ts'
import { Pace } from '#machine/pace.ts'
import type { Images, MachineDesk } from '#machine/ports.ts'
import type { SecretsDesk } from '#machine/secret-ports.ts'

import { createApi } from './api.ts'
import type { ApiParts } from './api-route.ts'
import { limitBodyTime } from './body-time.ts'
import type { BootScripts } from './boot-scripts.ts'
import { ChunkPool } from './chunk-pool.ts'
import { ClientKeys } from './client-key.ts'
import { ConnectionLimit, limitConnections } from './connection-limit.ts'
import { clientAddress, type Exchange } from './exchange.ts'
import { type Doors, serveRequest } from './front-door.ts'
import { KernelWatch } from './kernel-watch.ts'
import { type ListenOn, listen } from './listener.ts'
import { createTlsServer } from './tls-server.ts'
import { WaitSeats } from './wait-seats.ts'

export interface HttpServiceOptions extends ApiParts {
  readonly listen: readonly ListenOn[]
  readonly desk: MachineDesk
  readonly secretsDesk: SecretsDesk
  readonly identityDesk: IdentityDesk
  readonly nodeDesk: NodeDesk
  readonly images: Images
  readonly scripts: BootScripts
  readonly challengeAnswer: (token: string) => string | undefined
  readonly version: string
  readonly clock: Clock
  readonly log: Log
  /** A machine has its boot script in full. */
  readonly onScriptSent?: (mac: Mac) => void
  /** A connection on which no byte moves for this long, either way, is dropped. */
  readonly stallMs?: number
  /** Setting fleetlock/enabled. */
  readonly isFleetLockOn: boolean
  /** Setting http/connections-per-address. */
  readonly connectionsPerAddress: number
  /** Of a known machine: there is head-room for it. */
  readonly isKnownAddress: (ip: Ipv4) => boolean
  /** A request came with a certificate of our CA; whether its key is still known is another matter. */
  readonly onClientKey?: (keySha256: string, ip: Ipv4) => void
}

export interface HttpService extends Service {
  /** Of the first TCP socket of plain HTTP, and of HTTPS; undefined before `start` and when there is none. */
  address(): AddressInfo | undefined
  tlsAddress(): AddressInfo | undefined
}

const STALL_MS = 30_000
/** A head must be here after this, a whole request after twice as long: bodies are small, but for snapshots of etcd. */
const HEAD_TIMEOUT_MS = 15_000
const CONNECTIONS_MAX = 2_048
const KEPT_FOR_KNOWN = 512
/** New connections. A TLS handshake costs milliseconds of processor time, a plain connection hardly anything. */
const RATES = {
  plain: {
    newPerAddress: { burst: 4_096, perSecond: 1_024 },
    newOfStrangers: { burst: 8_192, perSecond: 4_096 },
  },
  tls: { newPerAddress: { burst: 256, perSecond: 32 }, newOfStrangers: { burst: 512, perSecond: 128 } },
} as const
/** What downloads under way get to end by themselves at a stop. */
const STOP_GRACE_MS = 1_000
// 512 KiB: half a millisecond of a gigabit line and few trips to the thread pool; 64 of them stay in memory, and slow
// readers keep 128 at most.
const CHUNKS = { chunkBytes: 512 * 1024, idleChunks: 64, lentChunks: 128 }

/** Of one address: many machines may have begun behind one, and each begins anew twice a minute at most. */
const IDENTITY_PACE = { atOnce: 600, oneEveryMs: 200 }
/** Of one machine, or one that is on its way to be one: an agent has one, and another that is over but not gone yet. */
const WAITS_MAX = 4
/** A boot says some 40 things before it has proved who it is. */
const UNPROVED_PACE = { atOnce: 400, oneEveryMs: 500 }

export function createHttpService(options: HttpServiceOptions): HttpService {
  const stop = new AbortController()
  const api = createApi({ ...options, stopping: stop.signal })
  const doors: Doors = {
    ...options,
    identityPace: new Pace(options.clock, IDENTITY_PACE),
    unprovedPace: new Pace(options.clock, UNPROVED_PACE),
    waitSeats: new WaitSeats(WAITS_MAX),
    api,
    tlsPort: () => addressOf(true)?.port ?? 0,
    kernels: new KernelWatch(options.events),
    pool: new ChunkPool(CHUNKS),
  }
  const servers = options.listen.map((on) => ({
    on,
    ...newServer(on, { doors, stopping: stop.signal }, options),
  }))
  const addressOf = (isTls: boolean) => {
    const addresses = servers
      .filter(({ on }) => ('tls' in on && on.tls !== undefined) === isTls)
      .map(({ server }) => server.address())
    return addresses.find((address) => typeof address === 'object' && address !== null) ?? undefined
  }

  return {
    name: 'http',
    async start() {
      for (const { server, on } of servers) await listen(server, on)
    },
    async stop() {
      stop.abort()
      await Promise.all(servers.map((running) => close(running, options.clock)))
      await api.stop()
    },
    address: () => addressOf(false),
    tlsAddress: () => addressOf(true),
  }
}

const LIMITS: ServerOptions = {
  headersTimeout: HEAD_TIMEOUT_MS,
  requestTimeout: 0, // body-time.ts, which knows what is asked for
  connectionsCheckingInterval: 5_000,
  keepAliveTimeout: 10_000,
  maxHeaderSize: 8 * 1024,
  noDelay: true,
}

interface Serving {
  readonly doors: Doors
  readonly stopping: AbortSignal
}

interface Running {
  readonly server: Server
  /** Ends what `closeAllConnections` does not know of. */
  readonly end?: () => void
}

function newServer(on: ListenOn, { doors, stopping }: Serving, options: HttpServiceOptions): Running {
  const tls = 'tls' in on ? on.tls : undefined
  const running: Running = tls === undefined ? { server: createServer(LIMITS) } : createTlsServer(tls, LIMITS)
  const keys = tls && new ClientKeys(tls.caPem, options.clock)
  const originOf = ({ socket }: IncomingMessage): Pick<Exchange, 'transport' | 'isTrusted' | 'clientKey'> => {
    if ('socketFile' in on) return { transport: 'socket', isTrusted: on.isTrusted }
    const clientKey = socket instanceof TLSSocket ? keys?.keyOf(socket) : undefined
    const transport = tls === undefined ? 'plain' : 'tls'
    return { transport, isTrusted: false, ...(clientKey !== undefined && { clientKey }) }
  }
  const { log } = options
  guard(running.server, options)
  // Who may open a unix socket is trusted with that.
  if ('address' in on) {
    const { clock, isKnownAddress, connectionsPerAddress: perAddress } = options
    const rates = RATES[tls === undefined ? 'plain' : 'tls']
    const limits = { total: CONNECTIONS_MAX, keptForKnown: KEPT_FOR_KNOWN, perAddress, ...rates }
    limitConnections(running.server, new ConnectionLimit({ limits, isKnownAddress, clock }))
  }
  running.server.on('request', (request, response) => {
    // Without a listener a single write that comes too late would end the process.
    response.on('error', (error) => log.warn({ err: error, url: request.url }, 'an answer went wrong'))
    limitBodyTime(request, response, { clock: options.clock, timeoutMs: 2 * HEAD_TIMEOUT_MS })
    const origin = originOf(request)
    const address = clientAddress(request)
    if (origin.clientKey !== undefined && address !== undefined)
      options.onClientKey?.(origin.clientKey, address)
    void serveRequest({ request, response, ...origin, stopping }, doors)
  })
  return running
}

/** The same limits on every socket. */
function guard(server: Server, { log, stallMs = STALL_MS }: HttpServiceOptions): void {
  server.maxHeadersCount = 64
  server.maxConnections = CONNECTIONS_MAX
  // Node's socket timeout counts bytes the kernel took, not only those that were handed to it, so it sees a client
  // that has stopped reading (lib/net.js, Socket._onTimeout).
  server.setTimeout(stallMs, (socket: Socket) => {
    log.debug({ address: socket.remoteAddress }, 'a stalled connection was dropped')
    socket.destroy()
  })
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    log.debug({ err: error }, 'a client spoke no HTTP')
    // A failed handshake comes here too (lib/_tls_wrap.js): what is written then would wait for ever.
    const isOfHttp = error.code?.startsWith('HPE_') || error.code?.startsWith('ERR_HTTP_')
    if (socket.writable && isOfHttp)
      socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n')
    else socket.destroy()
  })
}

async function close({ server, end }: Running, clock: Clock): Promise<void> {
  if (!server.listening) {
    end?.()
    return
  }
  await new Promise(setImmediate) // TLS sends the last words of a stream a turn after they were said
  const { promise, resolve } = Promise.withResolvers<void>()
  server.close(() => resolve())
  server.closeIdleConnections()
  const cancel = clock.after(STOP_GRACE_MS, () => {
    server.closeAllConnections()
    end?.()
  })
  await promise
  cancel()
  end?.()
}
