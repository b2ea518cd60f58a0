// Staying connected to the API: one connection at a time, made anew when its certificate ages or is refused.

import { isDeepStrictEqual } from 'node:util'

import type { V1CertificateSigningRequest, V1Node } from '@kubernetes/client-node'

import type { Clock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import type { Log } from '#lib/log.ts'
import type { ClusterAccess } from '#machine/cluster-ports.ts'

import { asKitError, statusOf } from './api-errors.ts'
import { type Connection, connect } from './connection.ts'
import { type Follower, follow } from './follow.ts'

export interface LinkHearer {
  nodes(nodes: Iterable<V1Node>): void
  requests(requests: ReadonlyMap<string, V1CertificateSigningRequest>): void
  /** Before anything is heard over it; `undefined`: it is closed. */
  connection(connection: Connection | undefined): void
  /** Whether it can be reached, its version, or its problem is another. */
  health(): void
}

export interface LinkHealth {
  readonly isReachable: boolean
  readonly version?: string
  readonly problem?: string
}

/** After an access that could not be had or was refused. */
const AGAIN_MS = 15_000
/** Without an answer for so long, it is connected to anew. */
const SILENT_MOST_MS = 60_000
/** A new one is asked for when a third of the time is left, and never more often than this. */
const RENEW_LEAST_MS = 60_000
/** setTimeout takes no more than 24.8 days. */
const RENEW_MOST_MS = 7 * 86_400_000

export class ApiLink {
  readonly #clock: Clock
  readonly #log: Log
  readonly #hearer: LinkHearer
  readonly #access: () => Promise<ClusterAccess>
  #connection: Connection | undefined
  /** By connection: what is going on over it. One that is replaced is closed when that is done. */
  readonly #users = new Map<Connection, number>()
  #followers: Follower[] = []
  #health: LinkHealth = { isReachable: false }
  #opening: Promise<void> | undefined
  #cancelTimer: (() => void) | undefined
  #isStopped = false
  /** When it was connected, or heard of, last. */
  #aliveMs = 0
  /** Why it cannot be reached. */
  #problem: KitError | undefined

  constructor(
    { clock, log }: { readonly clock: Clock; readonly log: Log },
    access: () => Promise<ClusterAccess>,
    hearer: LinkHearer,
  ) {
    this.#clock = clock
    this.#log = log
    this.#access = access
    this.#hearer = hearer
    void this.#open()
  }

  /** Whether it is a cluster of others; undefined until that is known. */
  isAdopted(): boolean | undefined {
    return this.#connection?.isAdopted
  }

  health(): LinkHealth {
    return this.#health
  }

  /** Throws KitError `unavailable` where there is no connection yet. */
  async run<Result>(work: (connection: Connection) => Promise<Result>): Promise<Result> {
    const connection = await this.#current()
    this.#users.set(connection, (this.#users.get(connection) ?? 0) + 1)
    try {
      return await work(connection)
    } finally {
      const others = (this.#users.get(connection) ?? 1) - 1
      if (others > 0) this.#users.set(connection, others)
      else this.#users.delete(connection)
      if (others === 0 && connection !== this.#connection) connection.close()
    }
  }

  async #current(): Promise<Connection> {
    await this.#opening
    if (this.#connection !== undefined) return this.#connection
    throw this.#problem ?? new KitError('unavailable', 'Cannot reach the cluster: the server lets go of it')
  }

  /** Asks the API for its version; throws KitError `unavailable` when it does not answer. */
  async check(): Promise<void> {
    if (this.#connection === undefined && !this.#isStopped) await this.#open()
    const connection = await this.#current()
    try {
      const { gitVersion } = await connection.version.getCode()
      if (connection !== this.#connection) return
      this.#setHealth({ isReachable: true, version: gitVersion })
      for (const follower of this.#followers) follower.retryNow()
    } catch (error) {
      const problem = asKitError('reach the cluster', error)
      if (connection === this.#connection) this.#lose(problem)
      throw problem
    }
  }

  stop(): void {
    this.#isStopped = true
    this.#leave()
    for (const connection of this.#users.keys()) connection.close()
  }

  #open(): Promise<void> {
    this.#opening ??= this.#tryOpen().finally(() => {
      this.#opening = undefined
    })
    return this.#opening
  }

  async #tryOpen(): Promise<void> {
    this.#cancelTimer?.()
    this.#cancelTimer = undefined
    try {
      const connection = await connect(await this.#access())
      if (this.#isStopped) return connection.close()
      this.#leave()
      this.#connection = connection
      this.#aliveMs = this.#clock.monotonicMs()
      this.#hearer.connection(connection)
      this.#follow(connection)
      if (connection.untilMs !== undefined) this.#openAfter(this.#renewalMs(connection.untilMs))
    } catch (error) {
      if (this.#isStopped) return
      this.#lose(asKitError('connect to the cluster', error))
      this.#openAfter(AGAIN_MS)
    }
  }

  #follow(connection: Connection): void {
    const clock = this.#clock
    const nodes = follow<V1Node>(connection, {
      ...{ clock, path: '/api/v1/nodes' },
      onItems: (items) => this.#hearer.nodes(items.values()),
      onState: (problem) => this.#hearState(connection, problem),
    })
    let isTold = false
    const requests = follow<V1CertificateSigningRequest>(connection, {
      ...{ clock, path: '/apis/certificates.k8s.io/v1/certificatesigningrequests' },
      onItems: (items) => this.#hearer.requests(items),
      // Where the API is away, the Nodes say so; what is told here is that something is not allowed.
      onState: (problem) => {
        if (problem?.code !== 'forbidden' || isTold) return
        isTold = true
        this.#log.warn(
          { problem: problem.message, fix: problem.fix },
          'certificate requests cannot be followed',
        )
      },
    })
    this.#followers = [nodes, requests]
  }

  #hearState(connection: Connection, problem: KitError | undefined): void {
    if (connection !== this.#connection) return
    if (problem === undefined) {
      this.#aliveMs = this.#clock.monotonicMs()
      this.#setHealth({ ...this.#health, isReachable: true })
      // It may have been upgraded while it was away.
      void this.check().catch(() => {}) // the next watch tells
      return
    }
    this.#lose(problem)
    const status = statusOf(problem.cause)
    if (status === 401 && this.#cancelTimer === undefined) this.#openAfter(AGAIN_MS)
    // Sockets to a host that is gone without a word keep up hope for a quarter of an hour (tcp(7), tcp_retries2).
    const silentMs = this.#clock.monotonicMs() - this.#aliveMs
    if (status === undefined && silentMs > SILENT_MOST_MS) void this.#open()
  }

  #lose(problem: KitError): void {
    const { version } = this.#health
    this.#problem = problem
    this.#setHealth({
      isReachable: false,
      problem: problem.message,
      ...(version === undefined ? {} : { version }),
    })
  }

  #setHealth({ isReachable, version, problem }: LinkHealth): void {
    const before = this.#health
    this.#health = {
      isReachable,
      ...(version === undefined ? {} : { version }),
      ...(isReachable || problem === undefined ? {} : { problem }),
    }
    if (before.isReachable !== isReachable)
      this.#log.info({ ...this.#health }, `the cluster ${isReachable ? 'answers' : 'does not answer'}`)
    if (!isDeepStrictEqual(before, this.#health)) this.#hearer.health()
  }

  #openAfter(delayMs: number): void {
    this.#cancelTimer?.()
    this.#cancelTimer = this.#clock.after(delayMs, () => {
      this.#cancelTimer = undefined
      void this.#open()
    })
  }

  #renewalMs(untilMs: number): number {
    const twoThirds = ((untilMs - this.#clock.nowMs()) * 2) / 3
    return Math.min(Math.max(twoThirds, RENEW_LEAST_MS), RENEW_MOST_MS)
  }

  #leave(): void {
    this.#cancelTimer?.()
    this.#cancelTimer = undefined
    for (const follower of this.#followers) follower.stop()
    this.#followers = []
    const connection = this.#connection
    if (connection === undefined) return
    this.#connection = undefined
    this.#hearer.connection(undefined)
    if (!this.#users.has(connection)) connection.close()
  }
}
