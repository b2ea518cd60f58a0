// `/v1/machines/<mac>/`: what a machine reports, and what it shall run.

import type { Clock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import { findMac, isGroupMac, type Mac, macToPath } from '#lib/mac.ts'
import type { Pace } from '#machine/pace.ts'
import type { MachineDesk, Speaker, Target } from '#machine/ports.ts'
import type { SecretsDesk } from '#machine/secret-ports.ts'

import { type Exchange, requireMethod, sendNothing, sendText } from './exchange.ts'
import { type IdentityDoor, serveIdentity } from './identity-door.ts'
import { readWaitSeconds, waitForNews } from './long-poll.ts'
import { formatDiskPlan, formatTarget, targetTag } from './machine-answers.ts'
import { BOOT_ID, CHECK_IN, DISK_REPORT, NAMED_BOOT, STEP_REPORT } from './machine-shapes.ts'
import { grantNode, type NodeDoor, serveSnapshot, takeNodeReport } from './node-door.ts'
import { readBody } from './request-body.ts'
import { sendSecrets } from './secrets-door.ts'

export interface MachineDoor extends IdentityDoor, NodeDoor {
  readonly desk: MachineDesk
  readonly secretsDesk: SecretsDesk
  readonly clock: Clock
  /** By address: words of those who have proved nothing. */
  readonly unprovedPace: Pace
}

const BODY_MAX_BYTES = 16 * 1024
/** A storage server has dozens of disks, each with its partitions. */
const DISKS_MAX_BYTES = 32 * 1024

/** Whose words these are; undefined for those of nobody knows whom, which only `isOpen` endpoints hear. */
type Serve = (exchange: Exchange, mac: Mac, door: MachineDoor, by?: Speaker) => Promise<void>

interface Endpoint {
  readonly methods: readonly ('GET' | 'POST' | 'PUT')[]
  readonly serve: Serve
  readonly isOpen?: true
}

export const ENDPOINTS: Readonly<Record<string, Endpoint>> = {
  events: { methods: ['POST'], serve: takeReport, isOpen: true },
  boots: { methods: ['POST'], serve: nameBoot },
  disks: { methods: ['POST'], serve: takeDisks },
  'check-in': { methods: ['POST'], serve: takeCheckIn },
  target: { methods: ['GET'], serve: tellTarget },
  secrets: { methods: ['GET'], serve: sendSecrets },
  grant: { methods: ['POST'], serve: grantNode },
  node: { methods: ['POST'], serve: takeNodeReport },
  'etcd-snapshot': { methods: ['PUT', 'GET'], serve: serveSnapshot },
}

export async function serveMachine(exchange: Exchange, path: string, door: MachineDoor): Promise<void> {
  const [name = '', what = '', ...rest] = path.split('/')
  const mac = findMac(name)
  if (mac === undefined || isGroupMac(mac)) {
    throw new KitError('invalid-input', "Cannot tell which machine this is: the path has no machine's MAC")
  }
  if (what === 'identity' && rest.length <= 1) {
    await serveIdentity(exchange, { mac, attempt: rest[0] }, door)
    return
  }
  const endpoint = Object.hasOwn(ENDPOINTS, what) && rest.length === 0 ? ENDPOINTS[what] : undefined
  if (endpoint === undefined) {
    throw new KitError('not-found', 'Cannot find this path: see docs/ports-and-endpoints.md')
  }
  requireMethod(exchange, ...endpoint.methods)
  const by = await findSpeaker(exchange, mac, door)
  if (by === undefined && endpoint.isOpen !== true) {
    throw new KitError(
      'identity-needed',
      'Cannot take this: the machine must show its certificate, over HTTPS',
      {
        fix: `POST /v1/machines/${macToPath(mac)}/identity`,
      },
    )
  }
  if (by === undefined) takePace(exchange, door)
  await endpoint.serve(exchange, by?.mac ?? mac, door, by)
}

/** Undefined without a certificate, and with one whose key is forgotten. Throws KitError `wrong-machine`. */
async function findSpeaker(
  { clientKey }: Exchange,
  mac: Mac,
  { identityDesk }: MachineDoor,
): Promise<(Speaker & { readonly mac: Mac }) | undefined> {
  const identity = clientKey === undefined ? undefined : identityDesk.identityOfKey(clientKey)
  if (identity === undefined) return undefined
  const { keySha256 } = identity
  if (identityDesk.primaryOf(mac) === identity.mac) return { keySha256, mac: identity.mac }
  await identityDesk.noteRefusal(mac, identity)
  throw new KitError(
    'wrong-machine',
    `Cannot take this: the certificate is that of ${identity.mac}, not of ${mac}`,
  )
}

function takePace({ request, response }: Exchange, { unprovedPace }: MachineDoor): void {
  if (unprovedPace.take(request.socket.remoteAddress ?? '')) return
  response.setHeader('Retry-After', 10)
  throw new KitError(
    'too-many-requests',
    'Cannot take this: a machine that has not proved who it is says too much',
  )
}

async function takeReport(exchange: Exchange, mac: Mac, { desk }: MachineDoor, by?: Speaker): Promise<void> {
  const { request, response } = exchange
  await desk.report(mac, await readBody(request, { shape: STEP_REPORT, maxBytes: BODY_MAX_BYTES }), by)
  sendNothing(response)
}

async function nameBoot(exchange: Exchange, mac: Mac, { desk }: MachineDoor, by?: Speaker): Promise<void> {
  const { request, response } = exchange
  const { slot } = await readBody(request, { shape: NAMED_BOOT, maxBytes: BODY_MAX_BYTES })
  const { id } = await desk.nameBoot(mac, slot, by)
  sendText(response, `boot ${id}\n`)
}

async function takeDisks(exchange: Exchange, mac: Mac, { desk }: MachineDoor, by?: Speaker): Promise<void> {
  const { request, response } = exchange
  const report = await readBody(request, { shape: DISK_REPORT, maxBytes: DISKS_MAX_BYTES })
  sendText(response, formatDiskPlan(await desk.takeDisks(mac, report, by)))
}

async function takeCheckIn(exchange: Exchange, mac: Mac, door: MachineDoor, by?: Speaker): Promise<void> {
  const { request, response } = exchange
  const checkIn = await readBody(request, { shape: CHECK_IN, maxBytes: BODY_MAX_BYTES })
  await door.desk.checkIn(mac, checkIn, by)
  const isFromDisk = checkIn.phase === 'running' && checkIn.slot !== undefined
  if (isFromDisk && by !== undefined) await door.identityDesk.noteKept(by.keySha256)
  sendNothing(response)
}

/** Nothing (204) when there is nothing the machine should run. */
async function tellTarget(exchange: Exchange, mac: Mac, door: MachineDoor, by?: Speaker): Promise<void> {
  const { desk, clock, waitSeats: seats } = door
  const query = exchange.url.searchParams
  const waitSeconds = readWaitSeconds(query)
  const bootId = readBootId(query)
  const isNews = newsFor(query)
  const target = await waitForNews(exchange, {
    look: () => desk.target(mac, bootId, by),
    isNews: (found) => found !== undefined && isNews(found),
    subscribe: (listener) => desk.onTargetChange(listener),
    ...{ clock, waitSeconds, seats, key: mac },
  })
  if (exchange.response.destroyed) return
  if (target === undefined) sendNothing(exchange.response)
  else sendText(exchange.response, formatTarget(target, clock.nowMs()))
}

function readBootId(query: URLSearchParams): string | undefined {
  const id = query.get('boot')
  if (id === null || id === '' || BOOT_ID.safeParse(id).success) return id || undefined
  throw new KitError('invalid-input', 'Cannot tell which boot asks: boot is at most 64 printable characters')
}

/** Agents of images before there were slots say which bundle they have, and know no tag. */
function newsFor(query: URLSearchParams): (target: Target) => boolean {
  const known = query.get('known')
  if (known !== null) return (target) => targetTag(target) !== known
  const bundle = query.get('bundle')
  return (target) => target.bundleDigest !== bundle
}
