// `/v1/machines/<mac>/`: what a machine reports, and what it shall run.

import type { Clock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import { findMac, isGroupMac, type Mac } from '#lib/mac.ts'
import type { MachineDesk, Target } from '#machine/ports.ts'

import { type Exchange, requireMethod, sendNothing, sendText } from './exchange.ts'
import { formatDiskPlan, formatTarget, targetTag } from './machine-answers.ts'
import { BOOT_ID, CHECK_IN, DISK_REPORT, NAMED_BOOT, STEP_REPORT } from './machine-shapes.ts'
import { readBody } from './request-body.ts'
import { WAIT_MAX_SECONDS, waitForTarget } from './target-wait.ts'

export interface MachineDoor {
  readonly desk: MachineDesk
  readonly clock: Clock
}

const BODY_MAX_BYTES = 16 * 1024
/** A storage server has dozens of disks, each with its partitions. */
const DISKS_MAX_BYTES = 32 * 1024

type Serve = (exchange: Exchange, mac: Mac, door: MachineDoor) => Promise<void>

const ENDPOINTS: Readonly<Record<string, { readonly method: 'GET' | 'POST'; readonly serve: Serve }>> = {
  events: { method: 'POST', serve: takeReport },
  boots: { method: 'POST', serve: nameBoot },
  disks: { method: 'POST', serve: takeDisks },
  'check-in': { method: 'POST', serve: takeCheckIn },
  target: { method: 'GET', serve: tellTarget },
}

export async function serveMachine(exchange: Exchange, path: string, door: MachineDoor): Promise<void> {
  const [name = '', what = '', ...rest] = path.split('/')
  const mac = findMac(name)
  if (mac === undefined || isGroupMac(mac)) {
    throw new KitError('invalid-input', "Cannot tell which machine this is: the path has no machine's MAC")
  }
  const endpoint = Object.hasOwn(ENDPOINTS, what) && rest.length === 0 ? ENDPOINTS[what] : undefined
  if (endpoint === undefined) {
    throw new KitError('not-found', 'Cannot find this path: see docs/ports-and-endpoints.md')
  }
  requireMethod(exchange, endpoint.method)
  await endpoint.serve(exchange, mac, door)
}

async function takeReport({ request, response }: Exchange, mac: Mac, { desk }: MachineDoor): Promise<void> {
  await desk.report(mac, await readBody(request, { shape: STEP_REPORT, maxBytes: BODY_MAX_BYTES }))
  sendNothing(response)
}

async function nameBoot({ request, response }: Exchange, mac: Mac, { desk }: MachineDoor): Promise<void> {
  const { slot } = await readBody(request, { shape: NAMED_BOOT, maxBytes: BODY_MAX_BYTES })
  const { id } = await desk.nameBoot(mac, slot)
  sendText(response, `boot ${id}\n`)
}

async function takeDisks({ request, response }: Exchange, mac: Mac, { desk }: MachineDoor): Promise<void> {
  const report = await readBody(request, { shape: DISK_REPORT, maxBytes: DISKS_MAX_BYTES })
  sendText(response, formatDiskPlan(await desk.takeDisks(mac, report)))
}

async function takeCheckIn({ request, response }: Exchange, mac: Mac, { desk }: MachineDoor): Promise<void> {
  await desk.checkIn(mac, await readBody(request, { shape: CHECK_IN, maxBytes: BODY_MAX_BYTES }))
  sendNothing(response)
}

/** Nothing (204) when there is nothing the machine should run. */
async function tellTarget(exchange: Exchange, mac: Mac, { desk, clock }: MachineDoor): Promise<void> {
  const query = exchange.url.searchParams
  const waitSeconds = Number(query.get('wait') ?? 0)
  if (!Number.isInteger(waitSeconds) || waitSeconds < 0 || waitSeconds > WAIT_MAX_SECONDS) {
    throw new KitError('invalid-input', `Cannot wait: wait is whole seconds, at most ${WAIT_MAX_SECONDS}`)
  }
  const bootId = readBootId(query)
  const look = () => (bootId === undefined ? desk.target(mac) : desk.target(mac, bootId))
  const target = await waitForTarget(exchange, { desk, clock, look, isNews: newsFor(query), waitSeconds })
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
