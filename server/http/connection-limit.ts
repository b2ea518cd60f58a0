// How many connections one address may have, and strangers together, so that a client that opens thousands leaves room for others.

import type { Server, Socket } from 'node:net'

import type { Clock } from '#lib/clock.ts'
import { findIpv4, type Ipv4 } from '#lib/ipv4.ts'

/** So many at once, then so many a second. */
export interface Rate {
  readonly burst: number
  readonly perSecond: number
}

export interface ConnectionLimits {
  /** Of all addresses together. */
  readonly total: number
  /** Of `total`, only for addresses of known machines. */
  readonly keptForKnown: number
  readonly perAddress: number
  /** New connections of one address. */
  readonly newPerAddress: Rate
  /** New connections of all addresses that are not known. */
  readonly newOfStrangers: Rate
}

export interface ConnectionLimitOptions {
  readonly limits: ConnectionLimits
  readonly isKnownAddress: (ip: Ipv4) => boolean
  readonly clock: Clock
}

/** Addresses remembered; beyond, those used longest ago that have nothing open are forgotten. */
const ACCOUNTS_MAX = 4_096

/** From here on `server` hears only of connections that there is room for; others are cut before they cost anything. */
export function limitConnections(server: Server, limit: ConnectionLimit): void {
  const listeners = server.listeners('connection')
  server.removeAllListeners('connection')
  server.on('connection', (socket: Socket) => {
    if (limit.admit(socket)) for (const listener of listeners) listener.call(server, socket)
    else socket.destroy()
  })
}

/** The end of a connection that a limit needs of a socket. */
export type Connection = Pick<Socket, 'remoteAddress' | 'once'>

export class ConnectionLimit {
  readonly #options: ConnectionLimitOptions
  /** By address, the one that connected last is last. */
  readonly #accounts = new Map<string, Account>()
  readonly #strangers: Bucket
  #open = 0

  constructor(options: ConnectionLimitOptions) {
    this.#options = options
    this.#strangers = new Bucket(options.limits.newOfStrangers, options.clock)
  }

  /** Called once for each new connection. False: it is one too many. */
  admit(connection: Connection): boolean {
    const address = connection.remoteAddress?.replace(/^::ffff:/, '')
    if (address === undefined) return false // it has gone again before anybody looked at it
    const account = this.#accountOf(address)
    if (!this.#hasRoomFor(address, account)) return false
    account.open++
    this.#open++
    connection.once('close', () => {
      account.open--
      this.#open--
    })
    return true
  }

  #hasRoomFor(address: string, { open, bucket }: Account): boolean {
    const { limits, isKnownAddress } = this.#options
    if (open >= limits.perAddress || this.#open >= limits.total || !bucket.take()) return false
    const ip = findIpv4(address)
    if (ip !== undefined && isKnownAddress(ip)) return true
    return this.#open < limits.total - limits.keptForKnown && this.#strangers.take()
  }

  #accountOf(address: string): Account {
    const { limits, clock } = this.#options
    const account = this.#accounts.get(address) ?? {
      open: 0,
      bucket: new Bucket(limits.newPerAddress, clock),
    }
    this.#accounts.delete(address)
    this.#accounts.set(address, account)
    if (this.#accounts.size > ACCOUNTS_MAX) this.#forgetIdle()
    return account
  }

  /** Those that have something open are no more than there are connections. */
  #forgetIdle(): void {
    for (const [address, { open }] of this.#accounts) {
      if (open > 0) continue
      this.#accounts.delete(address)
      return
    }
  }
}

interface Account {
  open: number
  readonly bucket: Bucket
}

class Bucket {
  readonly #rate: Rate
  readonly #clock: Clock
  #left: number
  #atMs: number

  constructor(rate: Rate, clock: Clock) {
    this.#rate = rate
    this.#clock = clock
    this.#left = rate.burst
    this.#atMs = clock.monotonicMs()
  }

  take(): boolean {
    const nowMs = this.#clock.monotonicMs()
    const { burst, perSecond } = this.#rate
    this.#left = Math.min(burst, this.#left + ((nowMs - this.#atMs) / 1000) * perSecond)
    this.#atMs = nowMs
    if (this.#left < 1) return false
    this.#left--
    return true
  }
}
