// Taking a machine out of everything: named steps, each told, each of which may be run again after a cut.

import type { Clock } from '#lib/clock.ts'
import { describeError, KitError } from '#lib/errors.ts'
import type { KeyedQueue } from '#lib/keyed-queue.ts'
import type { Mac } from '#lib/mac.ts'

import { hostnameOf } from './boot-plan.ts'
import type { Cluster } from './cluster-ports.ts'
import { findRemovalFault } from './etcd-quorum.ts'
import type { Identities } from './identity-ports.ts'
import type { NodeBook } from './node-book.ts'
import type { EventLog, Profiles } from './ports.ts'
import type { Roster } from './roster.ts'

export interface NodeRemovalOptions {
  readonly book: NodeBook
  readonly cluster: Cluster
  readonly profiles: Pick<Profiles, 'profileFor' | 'unassignRole' | 'machines'>
  readonly identities: Pick<Identities, 'find' | 'forget'>
  readonly roster: Pick<Roster, 'has' | 'forget'>
  readonly events: Pick<EventLog, 'append'>
  readonly queue: KeyedQueue<'cluster'>
  readonly clock: Clock
  /** What the node desk and the update lock remember of it. */
  readonly forget: (mac: Mac) => Promise<void>
}

interface Removal {
  readonly mac: Mac
  readonly name: string
  readonly force: boolean
  readonly by: string
}

interface Step {
  readonly name: string
  /** Needs the cluster: `force` goes on without it. */
  readonly isOfCluster: boolean
  /** Resolves with what was done; undefined when there was nothing to do. */
  readonly run: (removal: Removal) => Promise<string | undefined>
}

const DRAIN_TIMEOUT_MS = 2 * 60_000

export class NodeRemoval {
  readonly #options: NodeRemovalOptions
  readonly #check: Step
  readonly #steps: readonly Step[]

  constructor(options: NodeRemovalOptions) {
    this.#options = options
    this.#check = { name: 'etcd-member', isOfCluster: true, run: (removal) => this.#requireQuorum(removal) }
    this.#steps = [
      { name: 'drain', isOfCluster: true, run: (removal) => this.#drain(removal) },
      { name: 'etcd-member', isOfCluster: true, run: (removal) => this.#removeMember(removal) },
      { name: 'certificate', isOfCluster: false, run: (removal) => this.#noteCertificate(removal) },
      { name: 'node', isOfCluster: true, run: (removal) => this.#deleteNode(removal) },
      { name: 'token', isOfCluster: true, run: (removal) => this.#revoke(removal) },
      { name: 'role', isOfCluster: false, run: (removal) => this.#unassign(removal) },
      { name: 'identity', isOfCluster: false, run: (removal) => this.#forgetIdentity(removal) },
      { name: 'records', isOfCluster: false, run: (removal) => this.#forgetRecords(removal) },
    ]
  }

  /** Throws KitError `not-found`, `conflict`, `unavailable`; what was done until then stays done. */
  async remove(mac: Mac, { force, by }: { readonly force: boolean; readonly by: string }): Promise<void> {
    const { book, profiles, roster, events, queue } = this.#options
    const node = book.node(mac)
    if (node === undefined && !roster.has(mac) && !profiles.machines().includes(mac)) {
      throw new KitError('not-found', `Cannot remove ${mac}: it was never seen`)
    }
    const name = node?.name ?? hostnameOf(mac, profiles.profileFor(mac))
    const removal = { mac, name, force, by }
    // A node that has to stay is not emptied.
    if (!force && this.#isOfEtcd(mac)) await this.#step(this.#check, removal)
    // A drain takes minutes, and grants must not wait for it.
    const [drain, ...rest] = this.#steps
    if (drain !== undefined) await this.#step(drain, removal)
    await queue.run('cluster', async () => {
      for (const step of rest) await this.#step(step, removal)
    })
    await events.append({
      kind: 'machine-removed',
      mac,
      message: `${by} had ${name} taken out`,
      data: { by },
    })
  }

  async #step(step: Step, removal: Removal): Promise<void> {
    const { book, events } = this.#options
    const { mac, force } = removal
    if (step.isOfCluster && (book.cluster() === undefined || book.node(mac) === undefined)) return
    const tell = (outcome: string, message: string) =>
      events.append({ kind: 'removal-step', mac, message, data: { step: step.name, outcome } })
    try {
      if (step.isOfCluster) this.#requireCluster()
      const done = await step.run(removal)
      if (done !== undefined) await tell('done', done)
    } catch (error) {
      const reason = describeError(error)
      await tell(force && step.isOfCluster ? 'skipped' : 'failed', `${step.name}: ${reason}`)
      if (force && step.isOfCluster) return
      const code = error instanceof KitError ? error.code : 'internal'
      throw new KitError(code, `Cannot remove ${mac} (${step.name}): ${reason}`, {
        fix: step.isOfCluster
          ? `try again, or kateskit remove ${mac} --force when the cluster or the machine is gone`
          : 'try again: what was done stays done',
        cause: error,
      })
    }
  }

  /** Each of these would wait for its own timeout else. */
  #requireCluster(): void {
    const { isReachable, problem } = this.#options.cluster.health()
    if (isReachable) return
    throw new KitError('unavailable', `the cluster cannot be reached: ${problem ?? 'it does not answer'}`)
  }

  async #requireQuorum({ name }: Removal): Promise<undefined> {
    const members = await this.#options.cluster.etcdMembers()
    const member = members.find((each) => each.name === name)
    const fault = member && findRemovalFault(members, member.id)
    if (fault !== undefined) throw new KitError('conflict', `Cannot take ${name} out of etcd: ${fault}`)
  }

  #isOfEtcd(mac: Mac): boolean {
    const { book } = this.#options
    return book.node(mac)?.role === 'control-plane' && book.cluster()?.isAdopted !== true
  }

  async #drain({ name }: Removal): Promise<string | undefined> {
    const { cluster } = this.#options
    if (!cluster.nodes().some((node) => node.name === name)) return undefined
    await cluster.drain(name, DRAIN_TIMEOUT_MS)
    return `node ${name} is drained`
  }

  async #removeMember({ mac, name }: Removal): Promise<string | undefined> {
    const { cluster } = this.#options
    if (!this.#isOfEtcd(mac)) return undefined
    const member = (await cluster.etcdMembers()).find((each) => each.name === name)
    if (member === undefined) return undefined
    await cluster.removeEtcdMember(member.id)
    return `the member ${name} is out of etcd`
  }

  /** Its kubelet keeps it, and makes the Node again with it, perhaps before this removal is through. */
  async #noteCertificate({ mac, name }: Removal): Promise<undefined> {
    const { book, cluster, clock } = this.#options
    const record = book.node(mac)
    const live = cluster.nodes().find((node) => node.name === name)
    const machineId = live?.machineId ?? record?.machineId
    if (record === undefined || machineId === undefined) return
    await book.saveRemovedNode({ mac, name, machineId, atMs: clock.nowMs() })
  }

  async #deleteNode({ name }: Removal): Promise<string> {
    await this.#options.cluster.forgetNode(name)
    return `the Node ${name} is deleted`
  }

  async #revoke({ mac }: Removal): Promise<string | undefined> {
    const { book, cluster } = this.#options
    const tokens = book.grantsOf(mac).flatMap(({ tokenId }) => tokenId ?? [])
    for (const token of tokens) await cluster.revokeToken(token)
    return tokens.length === 0 ? undefined : 'its token is revoked'
  }

  async #unassign({ mac }: Removal): Promise<string | undefined> {
    const { profiles } = this.#options
    if (!profiles.machines().includes(mac)) return undefined
    await profiles.unassignRole(mac)
    return 'its role is taken away'
  }

  async #forgetIdentity({ mac, by }: Removal): Promise<string | undefined> {
    const { identities } = this.#options
    if (identities.find(mac) === undefined) return undefined
    await identities.forget(mac, by)
    return 'its key counts no more'
  }

  async #forgetRecords({ mac }: Removal): Promise<string> {
    const { book, roster, forget } = this.#options
    for (const grant of book.grantsOf(mac)) {
      const { tokenId: _gone, ...rest } = grant
      await book.saveGrant({ ...rest, state: 'closed' })
    }
    await book.removeNode(mac)
    const cluster = book.cluster()
    // Nobody else could make it otherwise.
    if (cluster?.isUp === false && cluster.founder === mac) await book.forgetCluster()
    await forget(mac)
    await roster.forget(mac)
    return 'the server forgets what it knew of it'
  }
}
