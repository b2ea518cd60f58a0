// Which machines have proved who they are, and which TPMs people approved: what the store holds, at hand.

import type { Mac } from '#lib/mac.ts'

import type { Approval, Identity } from './identity.ts'
import type { IdentityStore } from './identity-ports.ts'

export class IdentityBook {
  readonly #store: IdentityStore
  readonly #byMac = new Map<Mac, Identity>()
  readonly #byKey = new Map<string, Identity>()
  readonly #byEk = new Map<string, Identity>()
  /** Every MAC of every identity. */
  readonly #primaries = new Map<Mac, Mac>()
  readonly #approvals = new Map<string, Approval>()

  constructor(store: IdentityStore) {
    this.#store = store
  }

  /** Called once, before anything else. */
  async load(): Promise<void> {
    for (const identity of await this.#store.identities()) this.#put(identity)
    for (const approval of await this.#store.approvals()) this.#approvals.set(approval.ekSha256, approval)
  }

  /** By MAC, ascending. */
  list(): readonly Identity[] {
    return [...this.#byMac.values()].sort((one, other) => (one.mac < other.mac ? -1 : 1))
  }

  /** Of the machine itself, or of the one it is an alias of. */
  of(mac: Mac): Identity | undefined {
    return this.#byMac.get(this.primaryOf(mac))
  }

  ofKey(keySha256: string): Identity | undefined {
    return this.#byKey.get(keySha256)
  }

  ofEk(ekSha256: string): Identity | undefined {
    return this.#byEk.get(ekSha256)
  }

  primaryOf(mac: Mac): Mac {
    return this.#primaries.get(mac) ?? mac
  }

  /** Inserts or replaces by `mac`; in force at once, committed when it resolves. A MAC that was the alias of another is that no more. */
  async save(identity: Identity): Promise<void> {
    const writes: Promise<void>[] = []
    for (const mac of identity.macs) {
      const other = this.of(mac)
      if (other === undefined || other.mac === identity.mac) continue
      const less = { ...other, macs: other.macs.filter((each) => each !== mac) }
      this.#put(less)
      writes.push(this.#store.saveIdentity(less))
    }
    this.#put(identity)
    writes.push(this.#store.saveIdentity(identity))
    await Promise.all(writes)
  }

  async remove(mac: Mac): Promise<void> {
    this.#drop(mac)
    await this.#store.removeIdentity(mac)
  }

  /** In the order they were made. */
  approvals(): readonly Approval[] {
    return [...this.#approvals.values()]
  }

  approvalOf(ekSha256: string): Approval | undefined {
    return this.#approvals.get(ekSha256)
  }

  async saveApproval(approval: Approval): Promise<void> {
    this.#approvals.set(approval.ekSha256, approval)
    await this.#store.saveApproval(approval)
  }

  async removeApproval(ekSha256: string): Promise<void> {
    this.#approvals.delete(ekSha256)
    await this.#store.removeApproval(ekSha256)
  }

  #put(identity: Identity): void {
    this.#drop(identity.mac)
    this.#byMac.set(identity.mac, identity)
    this.#byKey.set(identity.keySha256, identity)
    if (identity.ekSha256 !== undefined) this.#byEk.set(identity.ekSha256, identity)
    for (const mac of identity.macs) this.#primaries.set(mac, identity.mac)
  }

  #drop(mac: Mac): void {
    const identity = this.#byMac.get(mac)
    if (identity === undefined) return
    this.#byMac.delete(mac)
    this.#byKey.delete(identity.keySha256)
    if (identity.ekSha256 !== undefined) this.#byEk.delete(identity.ekSha256)
    for (const each of identity.macs) this.#primaries.delete(each)
  }
}
