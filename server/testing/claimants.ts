// Machines that say who they are to the domain itself, with real keys, a real CA, and TPMs of paper that do real HMACs.

import { createHash, createHmac, randomBytes } from 'node:crypto'

import type { ExecutionContext } from 'ava'

import { parseIpv4 } from '#lib/ipv4.ts'
import { type Mac, parseMac } from '#lib/mac.ts'
import type { IdentityAnswer, IdentityStep, TpmVerifier } from '#machine/identity-ports.ts'
import { pairingCode } from '#machine/pairing-code.ts'

import { type FixtureOptions, type Registry, startRegistry } from './registry-fixture.ts'
import { type MachineKeys, machineKeys } from './test-machine.ts'
import { testTls } from './tls-fixture.ts'

/** The endorsement keys that makers vouch for. */
export const VOUCHED = 'vouched for'

/** `ek` is a name; the credential is the secret itself, which only the one with that TPM looks at. */
const paperTpms: TpmVerifier = {
  readClaim({ ek }) {
    const name = Buffer.from(ek).toString()
    return {
      ekSha256: ekOf(name),
      vouchedBy: async () => (name === VOUCHED ? 'ek-list' : undefined),
      makeCredential() {
        const secret = randomBytes(32)
        return { credential: secret, secret }
      },
    }
  },
}

export const ekOf = (name: string) => createHash('sha256').update(name).digest('hex')

export const macOf = (number: number) => parseMac(`02:00:00:00:00:${number.toString(16).padStart(2, '0')}`)

export interface ClaimOptions {
  /** Which of the process's keys. */
  readonly key?: number
  readonly macs?: readonly Mac[]
  readonly ek?: string
  readonly from?: string
}

export interface Desk extends Registry {
  readonly fingerprint: string
  claimant(mac: Mac, options?: ClaimOptions): Promise<TestClaimant>
}

export async function startIdentityDesk(t: ExecutionContext, options: FixtureOptions = {}): Promise<Desk> {
  const { authority } = await testTls()
  const all = await startRegistry(t, { authority, tpm: paperTpms, ...options })
  const claimant = async (mac: Mac, { key = 0, ...claim }: ClaimOptions = {}) =>
    new TestClaimant(all, { mac, keys: await machineKeys(key), fingerprint: authority.fingerprint, ...claim })
  return { ...all, fingerprint: authority.fingerprint, claimant }
}

interface Claim extends Omit<ClaimOptions, 'key'> {
  readonly mac: Mac
  readonly keys: MachineKeys
  readonly fingerprint: string
}

export class TestClaimant {
  readonly claim: Claim
  readonly #domain: Pick<Registry, 'identityDesk' | 'identities'>
  readonly nonce = randomBytes(16).toString('hex')
  #serverNonce = ''

  constructor(domain: Pick<Registry, 'identityDesk' | 'identities'>, claim: Claim) {
    this.#domain = domain
    this.claim = claim
  }

  async begin(): Promise<IdentityStep> {
    const { mac, macs = [mac], keys, ek, from } = this.claim
    return this.#domain.identityDesk.request(mac, {
      ...{ csr: keys.csr, macs, commitment: createHash('sha256').update(this.nonce).digest('hex') },
      ...(ek !== undefined && { tpm: { ek: Buffer.from(ek), key: Buffer.from('key') } }),
      ...(from !== undefined && { address: parseIpv4(from) }),
    })
  }

  /** As far as it gets by itself: `issued`, `waiting` or `closed`. */
  async prove(): Promise<IdentityStep> {
    let step = await this.begin()
    if (step.kind === 'challenge') step = await this.answer(step.attempt, this.proofOf(step.credential))
    if (step.kind === 'pairing') {
      this.#serverNonce = step.nonce
      step = await this.answer(step.attempt, { kind: 'nonce', nonce: this.nonce })
    }
    return step
  }

  proofOf(secret: Uint8Array): IdentityAnswer {
    const der = Buffer.from(this.claim.keys.csr.replace(/-----[^-]*-----|\s/g, ''), 'base64')
    const digest = createHash('sha256').update(der).digest()
    return { kind: 'proof', proof: createHmac('sha256', secret).update(digest).digest('hex') }
  }

  answer(attempt: string, answer: IdentityAnswer): Promise<IdentityStep> {
    return this.#domain.identityDesk.answer(this.claim.mac, attempt, answer)
  }

  look(attempt: string): Promise<IdentityStep> {
    return this.#domain.identityDesk.look(this.claim.mac, attempt)
  }

  /** What its console shows. */
  get code(): string {
    const { mac, keys, fingerprint } = this.claim
    const nonces = { machineNonce: this.nonce, serverNonce: this.#serverNonce }
    return pairingCode({ mac, keySha256: keys.keySha256, caFingerprint: fingerprint, ...nonces })
  }

  /** A person types what the console shows. */
  async pair({ replace = false, code = this.code }: { replace?: boolean; code?: string } = {}) {
    return this.#domain.identities.pair(this.claim.mac, code, { replace, by: 'a person' })
  }
}
