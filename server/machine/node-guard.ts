// Keeps rollouts from harming the cluster: a node is drained before it may restart, and control planes go one at a time.

import type { Clock } from '#lib/clock.ts'
import { describeError } from '#lib/errors.ts'
import type { Log } from '#lib/log.ts'
import type { Mac } from '#lib/mac.ts'

import type { Cluster } from './cluster-ports.ts'
import type { Machine } from './machine.ts'
import type { NodeBook } from './node-book.ts'
import type { NodeFactFinder } from './node-facts.ts'
import { decideRestart, findQuorumProblem, findWrongImage } from './node-restart.ts'
import type { EventLog } from './ports.ts'
import { Repeats } from './repeats.ts'

export type RestartAnswer = { readonly kind: 'yes' } | { readonly kind: 'no'; readonly reason: string }

/** What rollouts ask. */
export interface NodeGuard {
  /** Into the image of that version. A machine that may not yet is made ready for it, and `onChange` of its maker says when. */
  mayRestart(mac: Mac, version: string): RestartAnswer
  /** All that may restart for an update: a node that was made ready and is not among them goes on as before. */
  settled(restarting: ReadonlySet<Mac>): void
  /** Why the image of that version is for none of these machines; undefined when it is. */
  findImageProblem(version: string, macs: readonly Mac[]): string | undefined
}

export interface NodeGuardOptions {
  readonly book: NodeBook
  readonly cluster: Pick<Cluster, 'health' | 'nodes' | 'etcdMembers' | 'drain' | 'setCordon'>
  readonly facts: Pick<NodeFactFinder, 'controlPlanes' | 'changing'>
  readonly roster: { known(mac: Mac): Machine | undefined }
  /** The Kubernetes of an image. */
  readonly kubernetesOf: (version: string) => string | undefined
  readonly events: Pick<EventLog, 'append'>
  readonly clock: Clock
  readonly log: Log
  readonly onChange: () => void
  /** A node that was drained has restarted, and its machine has said something new since. */
  readonly onReturn: () => void
}

const DRAIN_TIMEOUT_MS = 5 * 60_000
const TRY_AGAIN_MS = 60_000

interface Preparation {
  readonly boot: string | undefined
  /** Undefined while it is under way. */
  readonly problem?: string
  readonly untilMs: number
}

export class ClusterNodeGuard implements NodeGuard {
  readonly #options: NodeGuardOptions
  readonly #preparations = new Map<Mac, Preparation>()
  /** The boot in which a node was drained. */
  readonly #drained = new Map<Mac, string>()
  readonly #held = new Repeats()

  constructor(options: NodeGuardOptions) {
    this.#options = options
  }

  mayRestart(mac: Mac, version: string): RestartAnswer {
    const { book, cluster, facts, roster, kubernetesOf } = this.#options
    const node = book.node(mac)
    const { isReachable, problem } = cluster.health()
    const decision = decideRestart({
      node,
      kubernetes: kubernetesOf(version),
      unreachable: isReachable ? undefined : (problem ?? 'it does not answer'),
      others: facts.controlPlanes(mac),
      changing: facts.changing(mac),
      isDrained: this.#drained.has(mac) && this.#drained.get(mac) === roster.known(mac)?.bootId,
    })
    const answer = decision.kind === 'prepare' ? this.#prepare(mac) : decision
    if (answer.kind === 'yes') this.#held.forget(mac)
    else if (this.#held.isNews(mac, answer.reason)) this.#tell(mac, answer.reason)
    return answer
  }

  settled(restarting: ReadonlySet<Mac>): void {
    const { book, roster, onReturn } = this.#options
    for (const { mac, drainedBoot } of book.nodes()) {
      if (drainedBoot === undefined) continue
      if (roster.known(mac)?.bootId !== drainedBoot) {
        onReturn() // node-watch.ts opens it for pods once its checks have passed; the cluster need not have anything new to say
        continue
      }
      if (restarting.has(mac)) continue
      void this.#release(mac).catch((error: unknown) => this.#complain(mac, error))
    }
  }

  findImageProblem(version: string, macs: readonly Mac[]): string | undefined {
    const { book, facts, kubernetesOf } = this.#options
    const kubernetes = kubernetesOf(version)
    for (const mac of macs) {
      const node = book.node(mac)
      if (node?.hasJoined !== true) continue
      // Workers wait for the control planes by themselves; a step that is never right is refused here.
      const wrong = findWrongImage(
        { ...node, role: 'control-plane' },
        { kubernetes, others: facts.controlPlanes(mac) },
      )
      if (wrong !== undefined)
        return `${node.name} has Kubernetes ${node.version}, the image ${kubernetes}: ${wrong}`
    }
    return undefined
  }

  #prepare(mac: Mac): RestartAnswer {
    const { clock, roster } = this.#options
    const boot = roster.known(mac)?.bootId
    const known = this.#preparations.get(mac)
    const isCurrent = known !== undefined && known.boot === boot
    if (!isCurrent || (known.problem !== undefined && known.untilMs <= clock.nowMs())) {
      this.#preparations.set(mac, { boot, untilMs: clock.nowMs() + DRAIN_TIMEOUT_MS })
      void this.#drain(mac, boot)
    }
    return { kind: 'no', reason: (isCurrent && known.problem) || 'its node is being drained' }
  }

  async #drain(mac: Mac, boot: string | undefined): Promise<void> {
    const { book, cluster, events, clock, onChange } = this.#options
    const node = book.node(mac)
    if (node === undefined || boot === undefined) return
    try {
      if (node.role === 'control-plane') {
        const problem = findQuorumProblem(await cluster.etcdMembers(), node.name)
        if (problem !== undefined) throw new Error(problem)
      }
      // Who was cordoned by a person stays so afterwards; written down before it is done, so that it is undone.
      const isCordoned = cluster.nodes().find(({ name }) => name === node.name)?.isCordoned === true
      const now = book.node(mac)
      if (now === undefined) return // it was removed meanwhile
      if (!isCordoned || now.drainedBoot !== undefined) await book.saveNode({ ...now, drainedBoot: boot })
      await cluster.drain(node.name, DRAIN_TIMEOUT_MS)
      await events.append({
        kind: 'node-drained',
        mac,
        message: `node ${node.name} is drained for its restart`,
      })
      this.#drained.set(mac, boot)
      this.#preparations.delete(mac)
    } catch (error) {
      const problem = describeError(error)
      this.#preparations.set(mac, { boot, problem, untilMs: clock.nowMs() + TRY_AGAIN_MS })
    }
    onChange()
  }

  async #release(mac: Mac): Promise<void> {
    const { book, cluster, events } = this.#options
    const node = book.node(mac)
    const preparation = this.#preparations.get(mac)
    const isUnderWay = preparation !== undefined && preparation.problem === undefined
    if (node?.drainedBoot === undefined || isUnderWay) return
    this.#drained.delete(mac)
    this.#preparations.delete(mac)
    await cluster.setCordon(node.name, false)
    const now = book.node(mac)
    if (now === undefined) return // it was removed meanwhile
    const { drainedBoot: _over, ...rest } = now
    await Promise.all([
      book.saveNode(rest),
      events.append({
        kind: 'node-uncordoned',
        mac,
        message: `node ${node.name} takes pods again: it does not restart`,
      }),
    ])
  }

  #tell(mac: Mac, reason: string): void {
    const told = this.#options.events.append({
      kind: 'restart-held',
      mac,
      message: `it may not restart yet: ${reason}`,
    })
    told.catch((error: unknown) => this.#complain(mac, error))
  }

  #complain(mac: Mac, error: unknown): void {
    this.#options.log.warn({ err: error, mac }, `Cannot go on with a restart: ${describeError(error)}`)
  }
}
