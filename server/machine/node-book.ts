// What is remembered of the cluster: itself, its nodes, those that were removed, what boots were given. In memory as in the store.

import type { Mac } from '#lib/mac.ts'

import type { ClusterRecord, ClusterStore, GrantRecord, NodeRecord, RemovedNode } from './cluster-ports.ts'

/** As the store keeps them. */
const GRANTS_OF_ONE = 20

export class NodeBook {
  readonly #store: ClusterStore
  readonly #nodes = new Map<Mac, NodeRecord>()
  readonly #removed = new Map<Mac, RemovedNode>()
  /** By boot, in the order they were issued. */
  readonly #grants = new Map<string, GrantRecord>()
  #cluster: ClusterRecord | undefined

  constructor(store: ClusterStore) {
    this.#store = store
  }

  /** Called once, before anything else. */
  async load(): Promise<void> {
    this.#cluster = await this.#store.cluster()
    for (const node of await this.#store.nodes()) this.#nodes.set(node.mac, node)
    for (const node of await this.#store.removedNodes()) this.#removed.set(node.mac, node)
    for (const grant of await this.#store.grants()) this.#grants.set(grant.boot, grant)
  }

  cluster(): ClusterRecord | undefined {
    return this.#cluster
  }

  /** By MAC, ascending. */
  nodes(): readonly NodeRecord[] {
    return [...this.#nodes.values()].sort((one, other) => (one.mac < other.mac ? -1 : 1))
  }

  node(mac: Mac): NodeRecord | undefined {
    return this.#nodes.get(mac)
  }

  nodeNamed(name: string): NodeRecord | undefined {
    return this.nodes().find((node) => node.name === name)
  }

  /** Machines that are nodes no more, and may still have a certificate to be one. */
  removedNodes(): readonly RemovedNode[] {
    return [...this.#removed.values()]
  }

  grantOf(boot: string): GrantRecord | undefined {
    return this.#grants.get(boot)
  }

  /** That are not over. */
  grants(): readonly GrantRecord[] {
    return [...this.#grants.values()].filter(({ state }) => state !== 'closed')
  }

  grantsOf(mac: Mac): readonly GrantRecord[] {
    return this.grants().filter((grant) => grant.mac === mac)
  }

  /** The smallest that no node has, and for a node that is known the one it has. */
  indexFor(mac: Mac): number {
    const known = this.#nodes.get(mac)
    if (known !== undefined) return known.index
    const taken = new Set(this.nodes().map(({ index }) => index))
    let index = 0
    while (taken.has(index)) index += 1
    return index
  }

  /** In force once it is on disk, as is everything below. */
  async saveCluster(cluster: ClusterRecord): Promise<void> {
    await this.#store.saveCluster(cluster)
    this.#cluster = cluster
  }

  /** With all that is known of its nodes. */
  async forgetCluster(): Promise<void> {
    await this.#store.saveCluster(undefined)
    this.#cluster = undefined
    this.#nodes.clear()
    this.#removed.clear()
    this.#grants.clear()
  }

  /** No machine or name that is a node is a removed one. */
  async saveNode(node: NodeRecord): Promise<void> {
    await this.#store.saveNode(node)
    this.#nodes.set(node.mac, node)
    for (const { mac, name } of this.removedNodes())
      if (mac === node.mac || name === node.name) this.#removed.delete(mac)
  }

  async removeNode(mac: Mac): Promise<void> {
    await this.#store.removeNode(mac)
    this.#nodes.delete(mac)
  }

  async saveRemovedNode(node: RemovedNode): Promise<void> {
    await this.#store.saveRemovedNode(node)
    this.#removed.set(node.mac, node)
  }

  async saveGrant(grant: GrantRecord): Promise<void> {
    await this.#store.saveGrant(grant)
    this.#grants.delete(grant.boot)
    this.#grants.set(grant.boot, grant)
    const over = [...this.#grants.values()].filter(
      ({ mac, state }) => mac === grant.mac && state === 'closed',
    )
    for (const { boot } of over.slice(0, Math.max(0, over.length - GRANTS_OF_ONE))) this.#grants.delete(boot)
  }
}
