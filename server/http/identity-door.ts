// `/v1/machines/<mac>/identity`: how a machine proves who it is (docs/ports-and-endpoints.md), over HTTPS and without a
// certificate of its own.

import { z } from 'zod'

import type { Clock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import { findMac, isGroupMac, type Mac, macToPath, parseMac } from '#lib/mac.ts'
import type { IdentityDesk, IdentityRequest, IdentityStep, TpmClaim } from '#machine/identity-ports.ts'
import type { Pace } from '#machine/pace.ts'

import { clientAddress, type Exchange, requireMethod, sendText } from './exchange.ts'
import { readWaitSeconds, waitForNews } from './long-poll.ts'
import { plain, shortText } from './machine-texts.ts'
import { readBody } from './request-body.ts'
import type { WaitSeats } from './wait-seats.ts'

export interface IdentityDoor {
  readonly identityDesk: IdentityDesk
  readonly clock: Clock
  /** By address: reading a request takes arithmetic. */
  readonly identityPace: Pace
  readonly waitSeats: WaitSeats
}

const BODY_MAX_BYTES = 16 * 1024
/** More cards than any machine has. */
const MACS_MAX = 32

const hex = (digits: number) => z.string().regex(new RegExp(`^[0-9a-f]{${digits}}$`), `${digits} hex digits`)
const base64 = (maxBytes: number) =>
  z
    .base64()
    .max(Math.ceil(maxBytes / 3) * 4)
    .transform((text) => new Uint8Array(Buffer.from(text, 'base64')))
const mac = z
  .string()
  .refine((text) => findMac(text) !== undefined && !isGroupMac(parseMac(text)), "a machine's MAC")
  .transform(parseMac)

const TPM = z
  .object({ ek: base64(1024), ekCertificate: base64(4096).exactOptional(), key: base64(1024) })
  .transform((claim): TpmClaim => claim)
const REQUEST = z.object({
  csr: z.string().max(8192),
  macs: z.array(mac).max(MACS_MAX),
  uuid: shortText.exactOptional(),
  commitment: hex(64),
  tpm: TPM.exactOptional(),
})
const ANSWER = z.union([
  z.strictObject({ proof: hex(64) }).transform(({ proof }) => ({ kind: 'proof' as const, proof })),
  z.strictObject({ nonce: hex(32) }).transform(({ nonce }) => ({ kind: 'nonce' as const, nonce })),
])

/** `attempt` is what follows `identity/` in the path; undefined when nothing does. */
export async function serveIdentity(
  exchange: Exchange,
  named: { readonly mac: Mac; readonly attempt: string | undefined },
  door: IdentityDoor,
): Promise<void> {
  if (exchange.transport !== 'tls') {
    throw new KitError(
      'identity-needed',
      'Cannot take this over plain HTTP: a machine proves who it is over HTTPS',
    )
  }
  const step = await stepOf(exchange, named, door)
  if (!exchange.response.destroyed) sendText(exchange.response, formatStep(step))
}

async function stepOf(
  exchange: Exchange,
  { mac, attempt }: { readonly mac: Mac; readonly attempt: string | undefined },
  door: IdentityDoor,
): Promise<IdentityStep> {
  const { request, url } = exchange
  const { identityDesk, clock } = door
  if (attempt === undefined) {
    requireMethod(exchange, 'POST')
    takePace(exchange, door)
    const body = await readBody(request, { shape: REQUEST, maxBytes: BODY_MAX_BYTES })
    const address = clientAddress(request)
    const asked: IdentityRequest = { ...body, ...(address !== undefined && { address }) }
    return identityDesk.request(mac, asked)
  }
  requireMethod(exchange, 'GET', 'POST')
  if (request.method === 'POST') {
    const answer = await readBody(request, { shape: ANSWER, maxBytes: BODY_MAX_BYTES })
    return identityDesk.answer(mac, attempt, answer)
  }
  const step = await waitForNews(exchange, {
    look: () => identityDesk.look(mac, attempt),
    isNews: ({ kind }: IdentityStep) => kind !== 'waiting',
    subscribe: (listener) => identityDesk.onAttemptChange(listener),
    ...{ clock, waitSeconds: readWaitSeconds(url.searchParams), seats: door.waitSeats, key: attempt },
  })
  return step
}

function takePace({ request, response }: Exchange, { identityPace }: IdentityDoor): void {
  if (identityPace.take(request.socket.remoteAddress ?? '')) return
  response.setHeader('Retry-After', 30)
  throw new KitError(
    'too-many-requests',
    'Cannot begin: too many attempts from this address, wait 30 seconds',
  )
}

/** `name value` lines, for it is read by a shell script. */
export function formatStep(step: IdentityStep): string {
  const lines = (...fields: readonly (readonly [string, string])[]) =>
    fields.map(([name, value]) => `${name} ${plain(value)}\n`).join('')
  switch (step.kind) {
    case 'challenge': {
      const credential = Buffer.from(step.credential).toString('base64')
      return lines(['state', 'challenge'], ['attempt', step.attempt], ['credential', credential])
    }
    case 'pairing':
      return lines(['state', 'pairing'], ['attempt', step.attempt], ['nonce', step.nonce])
    case 'waiting': {
      const known = step.isConflict ? 'yes' : 'no'
      return lines(['state', 'waiting'], ['attempt', step.attempt], ['known', known])
    }
    case 'issued': {
      const facts = lines(['state', 'issued'], ['machine', macToPath(step.mac)], ['tier', step.tier])
      return `${facts}\n${step.certificate}`
    }
    case 'closed':
      return lines(['state', 'closed'], ['reason', step.reason])
    default:
      return step satisfies never
  }
}
