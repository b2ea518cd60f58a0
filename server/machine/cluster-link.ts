// The cluster as this server reaches it: by its own keys or by what an adopted one gave, and from when on it is up.

import type { Clock } from '#lib/clock.ts'
import { describeError } from '#lib/errors.ts'
import type { Log } from '#lib/log.ts'
import type { Service } from '#lib/service.ts'

import type { Cluster, ClusterAccess, ClusterKeys, ClusterRecord } from './cluster-ports.ts'
import type { NodeBook } from './node-book.ts'
import type { EventLog } from './ports.ts'

/** The kubeconfig of an adopted cluster: a secret that outlives the server's process. */
export interface AdoptedAccess {
  read(): Promise<string | undefined>
  /** `undefined` takes it away. */
  write(kubeconfig: string | undefined): Promise<void>
}

export interface ClusterLinkOptions {
  readonly book: NodeBook
  readonly cluster: Cluster
  readonly keys: ClusterKeys
  readonly adopted: AdoptedAccess
  readonly events: Pick<EventLog, 'append'>
  readonly clock: Clock
  readonly log: Log
  /** It is up from now on. */
  readonly onUp: () => void
}

/** Whom the API knows this server as. */
const OWN_NAME = 'kateskit'
/** Asked for anew long before: the adapter asks again whenever it connects. */
const OWN_DAYS = 30
const TRY_AGAIN_MS = 5_000

export class ClusterLink implements Service {
  readonly name = 'cluster link'
  readonly #options: ClusterLinkOptions
  #cancelRetry = () => {}
  #finishing: Promise<void> | undefined
  #isStopped = false

  constructor(options: ClusterLinkOptions) {
    this.#options = options
  }

  async start(): Promise<void> {
    this.connect()
    this.finishSoon()
  }

  async stop(): Promise<void> {
    this.#isStopped = true
    this.#cancelRetry()
    this.#options.cluster.use(undefined)
    await this.#finishing
  }

  /** Called when which cluster it is, or that it can be reached, has changed. */
  connect(): void {
    const { book, cluster } = this.#options
    const record = book.cluster()
    const isThere = record !== undefined && (record.isUp || this.#hasFounder(record))
    cluster.use(isThere ? () => this.#access(record) : undefined)
  }

  /** The founder has said that it is done: asks the API until it answers. */
  finishSoon(): void {
    const record = this.#options.book.cluster()
    if (this.#isStopped || record === undefined || record.isUp || !this.#hasFounder(record)) return
    this.#cancelRetry()
    this.#finishing ??= this.#finish(record).finally(() => {
      this.#finishing = undefined
    })
  }

  async #finish(record: ClusterRecord): Promise<void> {
    const { book, cluster, events, log, clock, onUp } = this.#options
    try {
      await cluster.check()
      await cluster.ensureBasics()
      const now = book.cluster()
      if (now?.id !== record.id || now.isUp) return
      await Promise.all([
        book.saveCluster({ ...now, isUp: true }),
        events.append({
          kind: 'cluster-up',
          ...(record.founder !== undefined && { mac: record.founder }),
          message: `the cluster ${record.name} is up at ${record.endpoint}`,
          data: { cluster: record.id },
        }),
      ])
      onUp()
    } catch (error) {
      log.warn({ err: error }, `The cluster does not answer yet: ${describeError(error)}`)
      if (!this.#isStopped) this.#cancelRetry = clock.after(TRY_AGAIN_MS, () => this.finishSoon())
    }
  }

  #hasFounder({ founder }: ClusterRecord): boolean {
    return founder !== undefined && this.#options.book.node(founder)?.hasJoined === true
  }

  async #access({ isAdopted, endpoint }: ClusterRecord): Promise<ClusterAccess> {
    const { keys, adopted } = this.#options
    if (isAdopted) return { kind: 'adopted', kubeconfig: (await adopted.read()) ?? '' }
    const [authority, client] = await Promise.all([
      keys.authority(),
      keys.issueClient({ name: OWN_NAME, organization: 'system:masters', days: OWN_DAYS }),
    ])
    return { kind: 'own', endpoint, authority: authority.certificate, client }
  }
}
