// The TFTP listener: takes requests, turns away what it must, and gives each client a session.

import type { RemoteInfo, Socket } from 'node:dgram'
import { once } from 'node:events'

import type { Clock } from '#lib/clock.ts'
import type { Ipv4 } from '#lib/ipv4.ts'
import type { Log } from '#lib/log.ts'
import type { Service } from '#lib/service.ts'
import type { OpenUdp } from '#lib/udp.ts'
import { encodeTftp, TFTP_ERROR, type TftpRequest } from '#wire/tftp.ts'
import { ETHERNET_BLOCK_BYTES, type TransferLimits } from '#wire/tftp-options.ts'

import { findPacket, openOwnPort } from './channel.ts'
import { type Placed, type PlaceLimits, Places } from './places.ts'
import type { TftpLookup } from './routes.ts'
import { type Channel, type Peer, Session } from './session.ts'
import { RETRY_POLICY, type RetryPolicy } from './transfer.ts'

export interface TftpLimits extends TransferLimits, PlaceLimits {}

const DEFAULT_LIMITS: TftpLimits = {
  maxBlockBytes: ETHERNET_BLOCK_BYTES,
  maxWindowBlocks: 64,
  maxTransfers: 512,
  keptForKnown: 128,
  maxTransfersPerClient: 16,
}

/** Room for a rack's worth of requests at the same moment. */
const RECEIVE_BUFFER_BYTES = 1 << 20

export interface TftpServiceOptions {
  /** 69 outside tests; 0 picks a free one, see `port`. */
  readonly port: number
  /** The server's own address: requests come to it and answers leave from it. Absent means any. */
  readonly address?: Ipv4
  readonly networkInterface?: string
  /** All transfers run over `port`, for clients behind NAT. */
  readonly singlePort?: boolean
  readonly lookup: TftpLookup
  /** Of a known machine. It can be forged: it opens head-room and nothing else. Cheap. */
  readonly isKnownAddress?: (ip: Ipv4) => boolean
  /** A client has confirmed the last byte. `name` is without leading slashes. Must not throw. */
  readonly onSent?: (ip: Ipv4, name: string, sizeBytes: number) => void
  readonly openUdp: OpenUdp
  readonly clock: Clock
  readonly log: Log
  readonly limits?: Partial<TftpLimits>
  readonly retryPolicy?: RetryPolicy
}

export interface TftpService extends Service {
  /** The port it listens on; throws before `start` has resolved. */
  port(): number
}

export function createTftpService(options: TftpServiceOptions): TftpService {
  return new TftpListener(options)
}

interface ActiveSession extends Placed {
  readonly session: Session
  /** The request as it came, to know a repetition. */
  readonly bytes: Uint8Array
}

class TftpListener implements TftpService {
  readonly name = 'tftp'
  readonly #options: TftpServiceOptions
  readonly #limits: TftpLimits
  /** By `ip:port` of the client. */
  readonly #active: Places<ActiveSession>
  /** All sessions that still have a socket or wait for a lookup, also those whose client has begun another. */
  readonly #running = new Set<Promise<void>>()
  #listener: Socket | undefined

  constructor(options: TftpServiceOptions) {
    this.#options = options
    this.#limits = { ...DEFAULT_LIMITS, ...options.limits }
    this.#active = new Places(this.#limits)
  }

  port(): number {
    if (this.#listener === undefined) throw new Error('TFTP is not listening')
    return this.#listener.address().port
  }

  async start(): Promise<void> {
    const { port, address, networkInterface, openUdp, log } = this.#options
    const listener = await openUdp({
      port,
      receiveBufferBytes: RECEIVE_BUFFER_BYTES,
      ...(address === undefined ? {} : { address }),
      ...(networkInterface === undefined ? {} : { networkInterface }),
    })
    listener.on('error', (error) => log.debug({ err: error }, 'TFTP: a packet could not be sent'))
    listener.on('message', (bytes, from) => this.#onMessage(listener, bytes, from))
    this.#listener = listener
  }

  async stop(): Promise<void> {
    const listener = this.#listener
    if (listener === undefined) return
    this.#listener = undefined
    listener.removeAllListeners('message')
    for (const { session } of this.#active.all()) session.stop('The server is stopping')
    await Promise.all(this.#running)
    listener.close()
    await once(listener, 'close')
  }

  #onMessage(listener: Socket, bytes: Buffer, from: RemoteInfo): void {
    const packet = findPacket(bytes, from)
    // dgram has read the address out of the packet's own header.
    const peer: Peer = { ip: from.address as Ipv4, port: from.port }
    switch (packet?.kind) {
      case 'read':
        this.#onRead(listener, packet, bytes, peer)
        break
      case 'write':
        sendError(listener, peer, TFTP_ERROR['access-violation'], 'This server is read-only')
        break
      default:
        if (packet !== undefined && this.#options.singlePort) {
          this.#active.get(keyOf(peer))?.session.receive(packet)
        }
    }
  }

  #onRead(listener: Socket, request: TftpRequest, bytes: Uint8Array, peer: Peer): void {
    if (request.mode !== 'octet') {
      // Netascii would change bytes of a program; who asks for it has forgotten to say `binary`. No firmware does.
      const message = `Only octet (binary) mode is served, not ${request.mode.slice(0, 20)}`
      sendError(listener, peer, TFTP_ERROR.other, message)
      return
    }
    const key = keyOf(peer)
    const former = this.#active.get(key)
    if (former !== undefined) {
      // The same request again: our answer is on its way, or the transfer has begun while this waited in a full queue.
      // A client that starts anew is silent first, and asks once more.
      if (former.session.isLively && Buffer.compare(former.bytes, bytes) === 0) return
      former.session.stop()
      this.#active.leave(key)
    }
    if (!this.#makeRoomFor(peer)) {
      // Silence, no error: firmware asks again after a second or more, but takes an error for the last word.
      this.#options.log.debug({ ip: peer.ip }, 'TFTP: too many transfers, a request was left unanswered')
      return
    }
    const session = this.#makeSession(listener, request, peer)
    const transfer: ActiveSession = {
      ...{ session, bytes },
      get isHalfOpen() {
        return session.isHalfOpen
      },
    }
    this.#active.take(key, { ip: peer.ip, transfer, nowMs: this.#options.clock.monotonicMs() })
    const running = session.run().then(() => {
      this.#running.delete(running)
      if (this.#active.get(key)?.session === session) this.#active.leave(key)
    })
    this.#running.add(running)
  }

  #makeSession(listener: Socket, request: TftpRequest, peer: Peer): Session {
    const { lookup, clock, log, openUdp, address, singlePort, retryPolicy, onSent } = this.#options
    return new Session({
      request,
      peer,
      lookup,
      clock,
      log,
      limits: this.#limits,
      policy: retryPolicy ?? RETRY_POLICY,
      openChannel: (receive) => {
        if (singlePort) return Promise.resolve(sharedChannel(listener, peer))
        const onError = (error: Error) =>
          log.debug({ err: error, ip: peer.ip }, 'TFTP: a packet could not be sent')
        return openOwnPort({ openUdp, address, peer, receive, onError })
      },
      refuse: (code, message) => sendError(listener, peer, code, message),
      onSent: (ip, name, sizeBytes) => onSent?.(ip, name, sizeBytes),
    })
  }

  #makeRoomFor({ ip }: Peer): boolean {
    const { isKnownAddress, clock } = this.#options
    const isKnown = isKnownAddress?.(ip) ?? false
    const room = this.#active.roomFor(ip, { isKnown, nowMs: clock.monotonicMs() })
    if (room === undefined) return false
    if (room === 'room') return true
    this.#active.get(room.key)?.session.stop()
    this.#active.leave(room.key)
    return true
  }
}

function keyOf(peer: Peer): string {
  return `${peer.ip}:${peer.port}`
}

/** The listener as the way to one client; what that client sends comes through the listener's own handler. */
function sharedChannel(listener: Socket, peer: Peer): Channel {
  return {
    send: (parts) => listener.send(parts, peer.port, peer.ip),
    close: () => Promise.resolve(),
  }
}

function sendError(listener: Socket, peer: Peer, code: number, message: string): void {
  listener.send(encodeTftp({ kind: 'error', code, message }), peer.port, peer.ip)
}
