// What the server says of itself to anybody: its CA, its clock, and what a certificate authority asks of it.

import type { Clock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import type { CaView } from '#machine/tls-ports.ts'

import { type Exchange, requireMethod, sendText } from './exchange.ts'

export interface ServerDoor {
  readonly ca: CaView
  /** What is to be answered to a challenge (RFC 8555 §8.3); undefined for one that nobody waits for. */
  readonly challengeAnswer: (token: string) => string | undefined
  readonly clock: Clock
}

/** Anybody may answer in its place: who asks believes it only with the fingerprint from elsewhere. */
export function serveCa(exchange: Exchange, rest: string, { ca }: ServerDoor): void {
  requirePath(rest === '')
  requireMethod(exchange, 'GET', 'HEAD')
  sendText(exchange.response, ca.pem, 'application/x-pem-file')
}

/** For machines without a working clock, before TLS matters. */
export function serveTime(exchange: Exchange, rest: string, { clock }: ServerDoor): void {
  requirePath(rest === '')
  requireMethod(exchange, 'GET', 'HEAD')
  sendText(exchange.response, `${Math.floor(clock.nowMs() / 1000)}\n`)
}

export function serveChallenge(exchange: Exchange, token: string, { challengeAnswer }: ServerDoor): void {
  requireMethod(exchange, 'GET', 'HEAD')
  const answer = challengeAnswer(token)
  requirePath(answer !== undefined)
  sendText(exchange.response, answer, 'application/octet-stream')
}

function requirePath(isThere: boolean): asserts isThere {
  if (!isThere) throw new KitError('not-found', 'Cannot find this path: see docs/ports-and-endpoints.md')
}
