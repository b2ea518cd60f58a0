// What the CA signs for machines.

import type { Clock } from '#lib/clock.ts'
import type { Mac } from '#lib/mac.ts'
import type { Authority, CertificateRequest } from '#machine/identity-ports.ts'

import { BACKDATED_MS, type Ca, DAY_MS } from './ca.ts'
import { readCertificateRequest } from './request.ts'
import { makeCertificate } from './x509.ts'

const MACHINE_LIFE_MS = 7 * DAY_MS

export function createAuthority(ca: Ca, clock: Clock): Authority {
  return {
    pem: ca.pem,
    fingerprint: ca.fingerprint,
    readRequest: readCertificateRequest,
    issueForMachine({ publicKey }: CertificateRequest, mac: Mac) {
      const nowMs = clock.nowMs()
      // X.509 counts in seconds.
      const untilMs = Math.floor(Math.min(nowMs + MACHINE_LIFE_MS, ca.untilMs) / 1000) * 1000
      const facts = { commonName: mac, publicKey, fromMs: nowMs - BACKDATED_MS, untilMs }
      return { pem: makeCertificate({ ...facts, use: { kind: 'client' } }, ca), untilMs }
    },
  }
}
