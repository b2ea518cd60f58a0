// Emptying a node: its pods are evicted, as their disruption budgets allow, until none is left that could be elsewhere.

import type { V1Pod } from '@kubernetes/client-node'

import type { Clock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'

import { asKitError, statusOf } from './api-errors.ts'
import type { Connection } from './connection.ts'
import { type Follower, follow } from './follow.ts'

export interface DrainOptions {
  readonly clock: Clock
  readonly timeoutMs: number
}

/** Not every refusal of an eviction is followed by an event. */
const AGAIN_MS = 5_000

/** The node has to be cordoned. Throws KitError `conflict` with what is left after `timeoutMs`. */
export async function evictPods(connection: Connection, name: string, options: DrainOptions): Promise<void> {
  const version = await evictionVersion(connection)
  await new Promise<void>((resolve, reject) => {
    const drain = new Drain({ connection, node: name, version }, options, { resolve, reject })
    drain.start()
  }).catch((error: unknown) => {
    throw asKitError(`drain the node ${name}`, error)
  })
}

/** Evictions and budgets: `policy/v1` since Kubernetes 1.22, and nothing else since 1.25. */
async function evictionVersion({ core }: Connection): Promise<string> {
  try {
    const { resources } = await core.getAPIResources()
    return resources.find(({ name }) => name === 'pods/eviction')?.version ?? 'v1'
  } catch (error) {
    throw asKitError('find out how pods are evicted', error)
  }
}

interface DrainTask {
  readonly connection: Connection
  readonly node: string
  /** Of `policy`. */
  readonly version: string
}

interface Settling {
  readonly resolve: () => void
  readonly reject: (error: unknown) => void
}

class Drain {
  readonly #task: DrainTask
  readonly #options: DrainOptions
  readonly #settling: Settling
  #followers: Follower[] = []
  #left: readonly V1Pod[] = []
  /** By uid: why it was not evicted. */
  readonly #refusals = new Map<string, string>()
  readonly #asking = new Set<string>()
  #problem: KitError | undefined
  #cancelTimeout: (() => void) | undefined
  #cancelAgain: (() => void) | undefined
  #isOver = false

  constructor(task: DrainTask, options: DrainOptions, settling: Settling) {
    this.#task = task
    this.#options = options
    this.#settling = settling
  }

  start(): void {
    const { connection, node, version } = this.#task
    const { clock, timeoutMs } = this.#options
    this.#cancelTimeout = clock.after(timeoutMs, () =>
      this.#end(() => this.#settling.reject(this.#problem ?? this.#late())),
    )
    const onState = (problem: KitError | undefined) => {
      this.#problem = problem
    }
    const pods = follow<V1Pod>(connection, {
      ...{ clock, onState, path: '/api/v1/pods', query: { fieldSelector: `spec.nodeName=${node}` } },
      onItems: (items) => {
        this.#left = [...items.values()].filter(mustGo)
        if (this.#left.length === 0) this.#end(this.#settling.resolve)
        else this.#evict()
      },
    })
    // A budget that changes may let the next one go.
    const budgets = follow(connection, {
      ...{ clock, path: `/apis/policy/${version}/poddisruptionbudgets` },
      onItems: () => this.#evict(),
    })
    this.#followers = [pods, budgets]
    connection.closing.addEventListener('abort', this.#letGo)
  }

  readonly #letGo = () =>
    this.#end(() =>
      this.#settling.reject(
        new KitError(
          'unavailable',
          `Cannot drain the node ${this.#task.node}: the server lets go of the cluster`,
        ),
      ),
    )

  #evict(): void {
    if (this.#isOver) return
    for (const pod of this.#left) {
      const uid = pod.metadata?.uid ?? ''
      if (pod.metadata?.deletionTimestamp !== undefined || this.#asking.has(uid)) continue
      this.#asking.add(uid)
      void this.#ask(pod)
        .catch((error: unknown) => this.#refused(uid, error))
        .finally(() => this.#asking.delete(uid))
    }
  }

  async #ask({ metadata }: V1Pod): Promise<void> {
    const [name, namespace] = [metadata?.name ?? '', metadata?.namespace ?? '']
    const { connection, version } = this.#task
    const body = { apiVersion: `policy/${version}`, kind: 'Eviction', metadata: { name, namespace } }
    await connection.core.createNamespacedPodEviction({ name, namespace, body })
    this.#refusals.delete(metadata?.uid ?? '')
  }

  #refused(uid: string, error: unknown): void {
    // It went by itself; its event follows.
    if (this.#isOver || statusOf(error) === 404) return
    if (statusOf(error) === 403) {
      this.#end(() => this.#settling.reject(error))
      return
    }
    this.#refusals.set(uid, statusOf(error) === 429 ? 'its disruption budget does not allow it' : 'refused')
    this.#cancelAgain ??= this.#options.clock.after(AGAIN_MS, () => {
      this.#cancelAgain = undefined
      this.#evict()
    })
  }

  #late(): KitError {
    const reasonOf = ({ metadata }: V1Pod) =>
      metadata?.deletionTimestamp === undefined
        ? (this.#refusals.get(metadata?.uid ?? '') ?? 'not evicted yet')
        : 'still ending'
    const named = this.#left.map(
      (pod) => `${pod.metadata?.namespace}/${pod.metadata?.name} (${reasonOf(pod)})`,
    )
    const more = named.length > 10 ? ` and ${named.length - 10} more` : ''
    return new KitError(
      'conflict',
      `Cannot drain the node ${this.#task.node}: left after ${Math.round(this.#options.timeoutMs / 1000)} s: ${named.slice(0, 10).join(', ')}${more}`,
      { fix: 'see their PodDisruptionBudgets, or delete these pods' },
    )
  }

  #end(settle: () => void): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#task.connection.closing.removeEventListener('abort', this.#letGo)
    for (const follower of this.#followers) follower.stop()
    this.#cancelTimeout?.()
    this.#cancelAgain?.()
    settle()
  }
}

/** Not: a DaemonSet's, which would come back to this very node; a static pod's mirror; what has ended. */
function mustGo({ metadata, status }: V1Pod): boolean {
  const isDaemon = metadata?.ownerReferences?.some(
    ({ kind, controller }) => kind === 'DaemonSet' && controller,
  )
  const isMirror = metadata?.annotations?.['kubernetes.io/config.mirror'] !== undefined
  const hasEnded = status?.phase === 'Succeeded' || status?.phase === 'Failed'
  return isDaemon !== true && !isMirror && !hasEnded
}
