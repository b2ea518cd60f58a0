// Whose certificate a TLS client has shown: only what our own CA signed counts, and only within its time.

import { createHash, X509Certificate } from 'node:crypto'
import type { TLSSocket } from 'node:tls'

import type { Clock } from '#lib/clock.ts'

interface ClientCertificate {
  readonly keySha256: string
  readonly fromMs: number
  readonly untilMs: number
}

/** Reads a connection's certificate once, and its time with every request: connections live long. */
export class ClientKeys {
  readonly #ca: X509Certificate
  readonly #clock: Clock
  readonly #known = new WeakMap<TLSSocket, ClientCertificate | 'none'>()

  constructor(caPem: string, clock: Clock) {
    this.#ca = new X509Certificate(caPem)
    this.#clock = clock
  }

  /** sha256 of the SubjectPublicKeyInfo of a certificate that counts, hex; undefined when there is none. */
  keyOf(socket: TLSSocket): string | undefined {
    const known = this.#known.get(socket) ?? this.#read(socket)
    this.#known.set(socket, known)
    if (known === 'none') return undefined
    const nowMs = this.#clock.nowMs()
    return known.fromMs <= nowMs && nowMs <= known.untilMs ? known.keySha256 : undefined
  }

  #read(socket: TLSSocket): ClientCertificate | 'none' {
    // OpenSSL has checked the chain, the purpose (clientAuth) and the time of the handshake.
    if (!socket.authorized) return 'none'
    const leaf = socket.getPeerX509Certificate()
    if (leaf === undefined || leaf.ca) return 'none'
    // Directly by our CA, whatever else a store of trusted certificates may ever hold.
    if (!leaf.checkIssued(this.#ca) || !leaf.verify(this.#ca.publicKey)) return 'none'
    const key = leaf.publicKey.export({ type: 'spki', format: 'der' })
    return {
      keySha256: createHash('sha256').update(key).digest('hex'),
      fromMs: leaf.validFromDate.getTime(),
      untilMs: leaf.validToDate.getTime(),
    }
  }
}
