// A stand-in for the identities behind the API: it holds what a test puts in, and notes what it was asked.

import { KitError } from '#lib/errors.ts'
import type { Mac } from '#lib/mac.ts'
import type { Approval, Attempt, Identity } from '#machine/identity.ts'
import type { Identities } from '#machine/identity-ports.ts'

/** Takes the code `K7M-2QX`, and any TPM. */
export class FakeIdentities implements Identities {
  readonly calls: unknown[][] = []
  readonly identities: Identity[] = []
  readonly waiting: Attempt[] = []
  readonly approved: Approval[] = []

  list() {
    return this.identities
  }

  find(mac: Mac) {
    return this.identities.find((identity) => identity.mac === mac)
  }

  attempts() {
    return this.waiting
  }

  approvals() {
    return this.approved
  }

  async pair(mac: Mac, code: string, options: Parameters<Identities['pair']>[2]): Promise<Identity> {
    this.calls.push(['pair', mac, code, options])
    if (code !== 'K7M-2QX') {
      throw new KitError('wrong-code', `Cannot pair ${mac}: the code is wrong; 2 more tries`)
    }
    return {
      ...{ mac, macs: [mac], tier: 'paired', keySha256: 'ab'.repeat(32), sinceMs: 1, by: options.by },
      certificateUntilMs: 2,
    }
  }

  async approve(what: Parameters<Identities['approve']>[0], by: string): Promise<Approval> {
    this.calls.push(['approve', what, by])
    return { ekSha256: 'ekSha256' in what ? what.ekSha256 : 'cd'.repeat(32), by, sinceMs: 1 }
  }

  async withdraw(ekSha256: string) {
    this.calls.push(['withdraw', ekSha256])
  }

  async forget(mac: Mac, by: string) {
    this.calls.push(['forget', mac, by])
  }
}
