// Certificate requests of kubelets: heard of, judged by the domain, and decided.

import type { V1CertificateSigningRequest } from '@kubernetes/client-node'

import type { Clock } from '#lib/clock.ts'
import type { Log } from '#lib/log.ts'
import type { NodeCertificateRequest, RequestVerdict } from '#machine/cluster-ports.ts'

import { asKitError, statusOf } from './api-errors.ts'
import type { Connection } from './connection.ts'
import { type RequestSubject, readRequestSubject } from './request-subject.ts'

export type Judge = (request: NodeCertificateRequest) => RequestVerdict
export type Heard = (request: NodeCertificateRequest, verdict: RequestVerdict) => void

/** Of our conditions. */
const REASON = 'KatesKit'
/** What could not be decided is tried again after this. */
const AGAIN_MS = 5_000
/** Another writer was faster: the signer, or another server's leftovers. */
const TRIES = 5

export class RequestDesk {
  readonly #clock: Clock
  readonly #log: Log
  #judge: Judge | undefined
  #heard: Heard = () => {}
  #connection: Connection | undefined
  #pending = new Map<string, V1CertificateSigningRequest>()
  /** By uid: being decided, or done with. */
  readonly #seen = new Set<string>()
  #cancelAgain: (() => void) | undefined

  constructor(clock: Clock, log: Log) {
    this.#clock = clock
    this.#log = log
  }

  setJudge(judge: Judge, heard: Heard): void {
    this.#judge = judge
    this.#heard = heard
    this.#seen.clear()
    this.#work()
  }

  /** `undefined`: there is nothing to decide with any more. */
  setConnection(connection: Connection | undefined): void {
    this.#connection = connection
    this.#pending.clear()
    this.#seen.clear()
    this.#cancelAgain?.()
    this.#cancelAgain = undefined
  }

  hear(requests: ReadonlyMap<string, V1CertificateSigningRequest>): void {
    this.#pending = new Map([...requests].filter(([, request]) => !isDecided(request)))
    for (const uid of this.#seen) if (!requests.has(uid)) this.#seen.delete(uid)
    this.#work()
  }

  #work(): void {
    const [judge, connection] = [this.#judge, this.#connection]
    if (judge === undefined || connection === undefined) return
    for (const [uid, request] of this.#pending) {
      if (this.#seen.has(uid)) continue
      this.#seen.add(uid)
      void this.#decide(connection, judge, request).catch((error: unknown) => {
        if (connection !== this.#connection) return
        const { message } = asKitError('decide about a certificate request', error)
        this.#log.warn({ request: request.metadata?.name, error: message }, 'a certificate request waits')
        this.#tryAgain(uid)
      })
    }
  }

  #tryAgain(uid: string): void {
    this.#seen.delete(uid)
    this.#cancelAgain ??= this.#clock.after(AGAIN_MS, () => {
      this.#cancelAgain = undefined
      this.#work()
    })
  }

  async #decide(connection: Connection, judge: Judge, listed: V1CertificateSigningRequest): Promise<void> {
    const request = readRequest(listed)
    const verdict = judge(request)
    if (verdict.kind === 'leave') return
    if (await writeVerdict(connection, request.name, verdict)) this.#heard(request, verdict)
  }
}

/** False when somebody else has decided, or it is gone. */
async function writeVerdict(
  { certificates }: Connection,
  name: string,
  verdict: Exclude<RequestVerdict, { kind: 'leave' }>,
): Promise<boolean> {
  for (let tries = 1; ; tries += 1) {
    try {
      const body = await certificates.readCertificateSigningRequest({ name })
      // By us, where only the answer was lost.
      if (isDecided(body)) return body.status?.conditions?.some(({ reason }) => reason === REASON) === true
      const conditions = [...(body.status?.conditions ?? []), conditionOf(verdict)]
      body.status = { ...body.status, conditions }
      await certificates.replaceCertificateSigningRequestApproval({ name, body })
      return true
    } catch (error) {
      if (statusOf(error) === 404) return false
      const isWorthIt = statusOf(error) === 409 || statusOf(error) === undefined
      if (!isWorthIt || tries === TRIES) throw error
    }
  }
}

function conditionOf(verdict: Exclude<RequestVerdict, { kind: 'leave' }>) {
  const shared = { status: 'True', reason: REASON }
  return verdict.kind === 'approve'
    ? { ...shared, type: 'Approved', message: 'It is what the grant of this machine is for' }
    : { ...shared, type: 'Denied', message: `Denied: ${verdict.reason}` }
}

function isDecided({ status }: V1CertificateSigningRequest): boolean {
  const conditions = status?.conditions ?? []
  return conditions.some(({ type }) => type === 'Approved' || type === 'Denied')
}

/** Exported for its tests. */
export function readRequest({ metadata, spec }: V1CertificateSigningRequest): NodeCertificateRequest {
  return {
    name: metadata?.name ?? '',
    username: spec.username ?? '',
    groups: spec.groups ?? [],
    usages: spec.usages ?? [],
    signerName: spec.signerName,
    ...subjectOf(spec.request),
  }
}

/** Whoever sends what cannot be read asks for nothing that anybody may have. */
function subjectOf(base64: string): RequestSubject {
  try {
    return readRequestSubject(Buffer.from(base64, 'base64').toString('latin1'))
  } catch {
    return { commonName: '', organizations: [], hasOtherNames: true, keySha256: '' }
  }
}
