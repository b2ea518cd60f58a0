// What all certificates have in common that the server keeps fresh for itself.

import { createPrivateKey, X509Certificate } from 'node:crypto'

import type { TlsMaterial } from '#machine/tls-ports.ts'

export interface KeptCertificate {
  /** Undefined while there is none to show. */
  material(): TlsMaterial | undefined
  /** Does what is due. Throws KitError when it could not; what there is stays. */
  check(): Promise<CheckOutcome>
}

export interface CheckOutcome {
  /** Why there is another certificate than before. */
  readonly change?: string
  /** What a person should see to, though all works. */
  readonly warning?: string
}

/** What is wrong with a pair for a host, all of it; empty when it may be shown. */
export function findProblems(
  { key, chain }: TlsMaterial,
  { name, nowMs }: { readonly name: string; readonly nowMs: number },
): readonly string[] {
  const certificate = readOr(() => new X509Certificate(chain))
  const privateKey = readOr(() => createPrivateKey(key))
  if (certificate === undefined || privateKey === undefined) {
    return [
      ...(certificate === undefined ? ['the certificate is not PEM, or damaged'] : []),
      ...(privateKey === undefined ? ['the key is not PEM, damaged, or has a passphrase'] : []),
    ]
  }
  const { validFromDate: from, validToDate: until } = certificate
  return [
    ...(certificate.checkPrivateKey(privateKey) ? [] : ['the key is not the one of the certificate']),
    ...(certificate.checkHost(name) === undefined ? [`the certificate is not for ${name}`] : []),
    ...(nowMs < from.getTime() ? [`the certificate begins on ${from.toISOString()}`] : []),
    ...(nowMs > until.getTime() ? [`the certificate ended on ${until.toISOString()}`] : []),
  ]
}

/** What OpenSSL says of what it cannot read helps nobody. */
function readOr<Value>(read: () => Value): Value | undefined {
  try {
    return read()
  } catch {
    return undefined
  }
}
