// Nodes of machines that were removed: no certificate of a kubelet can be revoked, so its Node is there again when it starts.

import { describeError } from '#lib/errors.ts'
import type { Log } from '#lib/log.ts'

import type { Cluster, ClusterNode, NodeRecord, RemovedNode } from './cluster-ports.ts'
import type { NodeBook } from './node-book.ts'
import type { EventLog } from './ports.ts'

export interface ReturnFacts {
  readonly live: readonly ClusterNode[]
  readonly removed: readonly RemovedNode[]
  readonly records: readonly Pick<NodeRecord, 'name'>[]
}

export interface ReturnedNode {
  readonly node: ClusterNode
  readonly removed: RemovedNode
}

/** A Node of the same name on another machine is somebody else's, such as one that a person joined by hand. */
export function findReturned({ live, removed, records }: ReturnFacts): readonly ReturnedNode[] {
  return live.flatMap((node) => {
    // A removal that was cut off has its record still, and is begun anew.
    if (records.some(({ name }) => name === node.name)) return []
    const found = removed.find((each) => each.name === node.name && each.machineId === node.machineId)
    return found === undefined ? [] : [{ node, removed: found }]
  })
}

export interface NodeReturnsOptions {
  readonly book: NodeBook
  readonly cluster: Cluster
  readonly events: Pick<EventLog, 'append'>
  readonly log: Log
}

export class NodeReturns {
  readonly #options: NodeReturnsOptions
  /** By name, the uid of the Node that was told of last. */
  readonly #told = new Map<string, string>()

  constructor(options: NodeReturnsOptions) {
    this.#options = options
  }

  /** Called when Nodes may be others than before. One that cannot be deleted holds up nothing, and is tried at the next call. */
  async turnAway(): Promise<void> {
    const { log } = this.#options
    for (const returned of findReturned(this.#facts())) {
      try {
        await this.#turnAway(returned)
      } catch (error) {
        const { name } = returned.node
        log.warn(
          { err: error, name },
          `Cannot turn away the Node of a removed machine: ${describeError(error)}`,
        )
      }
    }
  }

  async #turnAway({ node: { name, uid }, removed: { mac } }: ReturnedNode): Promise<void> {
    const { cluster, events } = this.#options
    const isDeleted = this.#isOurs()
    if (this.#told.get(name) === uid) return
    if (isDeleted) await cluster.forgetNode(name)
    await events.append({
      kind: 'node-turned-away',
      mac,
      message: isDeleted
        ? `the Node ${name} was there though its machine was removed, and is deleted: a kubelet keeps its certificate. Switch the machine off; to have it back: kateskit assign ${mac} <role>`
        : `the Node ${name} is there though its machine was removed: a kubelet keeps its certificate. The cluster is not this server's: kubectl delete node ${name}, and switch the machine off; to have it back: kateskit assign ${mac} <role>`,
      data: { deleted: isDeleted },
    })
    this.#told.set(name, uid)
  }

  /** In a cluster of others a Node may be there because they want it. */
  #isOurs(): boolean {
    return this.#options.book.cluster()?.isAdopted === false
  }

  #facts(): ReturnFacts {
    const { book, cluster } = this.#options
    return { live: cluster.nodes(), removed: book.removedNodes(), records: book.nodes() }
  }
}
