// A machine's part in the cluster: its grant, how it gets on, and snapshots of etcd. With its certificate, over TLS, and no other way.

import { z } from 'zod'

import type { Clock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import { findIpv4, parseIpv4 } from '#lib/ipv4.ts'
import type { Mac } from '#lib/mac.ts'
import type { GrantAnswer, GrantRequest, NodeDesk, NodeReport } from '#machine/cluster-ports.ts'
import { findKubernetesVersion } from '#machine/kubernetes-version.ts'
import type { Speaker } from '#machine/ports.ts'

import type { ChunkPool } from './chunk-pool.ts'
import { type Exchange, sendAccepted, sendBytes, sendNothing } from './exchange.ts'
import { sendFile } from './file-sender.ts'
import { readWaitSeconds, waitForNews } from './long-poll.ts'
import { BOOT_ID } from './machine-shapes.ts'
import { messageText, plain } from './machine-texts.ts'
import { readBody } from './request-body.ts'
import type { WaitSeats } from './wait-seats.ts'

export interface NodeDoor {
  readonly nodeDesk: NodeDesk
  readonly clock: Clock
  readonly waitSeats: WaitSeats
  readonly pool: ChunkPool
}

const BODY_MAX_BYTES = 16 * 1024

const VERSION = z
  .string()
  .refine(
    (text) => text.length <= 64 && findKubernetesVersion(text) !== undefined,
    'a version such as v1.33.1',
  )

const GRANT_REQUEST = z.object({
  boot: BOOT_ID,
  kubernetes: VERSION,
  node: z.enum(['none', 'member']),
  nodeVersion: VERSION.exactOptional(),
  kubeletKey: z
    .string()
    .regex(/^[0-9a-f]{64}$/, '64 hex digits')
    .exactOptional(),
  etcd: z
    .string()
    .regex(/^[0-9a-f]{16}$/, '16 hex digits')
    .exactOptional(),
  address: z
    .string()
    .refine((text) => findIpv4(text) !== undefined, 'an IPv4 address')
    .transform(parseIpv4),
})

const ACTIONS = [
  ...(['start', 'init', 'restore', 'join', 'join-control-plane'] as const),
  ...(['upgrade-first', 'upgrade-node'] as const),
] as const

const NODE_REPORT = z.object({
  boot: BOOT_ID,
  state: z.enum(['working', 'done', 'failed']),
  action: z.enum(ACTIONS),
  step: z
    .string()
    .regex(/^[a-z0-9][a-z0-9-]{0,63}$/, 'a step is lower-case letters, digits and dashes')
    .exactOptional(),
  message: messageText.exactOptional(),
})

export async function grantNode(
  exchange: Exchange,
  mac: Mac,
  { nodeDesk, clock, waitSeats: seats }: NodeDoor,
  by?: Speaker,
): Promise<void> {
  const speaker = requireSpeaker(exchange, by)
  const { request, response, url } = exchange
  const waitSeconds = readWaitSeconds(url.searchParams)
  const asked: GrantRequest = await readBody(request, { shape: GRANT_REQUEST, maxBytes: BODY_MAX_BYTES })
  const answer = await waitForNews(exchange, {
    look: () => nodeDesk.grant(mac, asked, speaker),
    isNews: ({ kind }: GrantAnswer) => kind !== 'wait',
    subscribe: (listener) => nodeDesk.onChange(listener),
    ...{ clock, waitSeconds, seats, key: `grant ${mac}` },
  })
  if (response.destroyed) return
  switch (answer.kind) {
    case 'grant':
      return sendBytes(response, answer.tar, 'application/x-tar')
    case 'wait':
      return sendAccepted(response, `wait ${plain(answer.reason)}\n`)
    case 'none':
      return sendNothing(response)
    default:
      return answer satisfies never
  }
}

export async function takeNodeReport(
  exchange: Exchange,
  mac: Mac,
  { nodeDesk }: NodeDoor,
  by?: Speaker,
): Promise<void> {
  const speaker = requireSpeaker(exchange, by)
  const { request, response } = exchange
  const report: NodeReport = await readBody(request, { shape: NODE_REPORT, maxBytes: BODY_MAX_BYTES })
  await nodeDesk.report(mac, report, speaker)
  sendNothing(response)
}

export async function serveSnapshot(
  exchange: Exchange,
  mac: Mac,
  { nodeDesk, pool }: NodeDoor,
  by?: Speaker,
): Promise<void> {
  const speaker = requireSpeaker(exchange, by)
  const { request, response, url } = exchange
  const boot = BOOT_ID.safeParse(url.searchParams.get('boot'))
  if (!boot.success) {
    throw new KitError(
      'invalid-input',
      'Cannot tell which boot asks: boot is at most 64 printable characters',
    )
  }
  if (request.method === 'GET') {
    const { file, sizeBytes, sha256 } = await nodeDesk.snapshotFor(mac, boot.data, speaker)
    await sendFile(exchange, { file, sizeBytes, sha256, contentType: 'application/octet-stream' }, pool)
    return
  }
  const sha256 = readDigest(request.headers['digest'])
  // Not destroyed when left early: the refusal still has to go out on the same connection. Bounded by who keeps it.
  const bytes: AsyncIterable<Uint8Array> = request.iterator({ destroyOnReturn: false })
  await nodeDesk.saveSnapshot(mac, boot.data, { bytes, sha256 }, speaker)
  sendNothing(response)
}

/** Whatever else lets a request through: never in the clear, never without a key, not even on the control socket. */
function requireSpeaker({ transport, clientKey }: Exchange, by: Speaker | undefined): Speaker {
  if (transport === 'tls' && clientKey !== undefined && by !== undefined) return by
  throw new KitError(
    'identity-needed',
    'Cannot take this: a machine must show its certificate, over HTTPS, to be part of the cluster',
  )
}

/** RFC 3230, in hex. */
function readDigest(header: string | string[] | undefined): string {
  const base64 = /^sha-256=([A-Za-z0-9+/]{43}=)$/i.exec(String(header ?? ''))?.[1]
  if (base64 !== undefined) return Buffer.from(base64, 'base64').toString('hex')
  throw new KitError(
    'invalid-input',
    'Cannot take a snapshot: the header Digest: sha-256=<base64> is missing',
  )
}
