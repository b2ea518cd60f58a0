// `/v1/machines/<mac>/`: what a machine reports, and what it shall run.

import { z } from 'zod'

import type { Clock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import { findIpv4, parseIpv4 } from '#lib/ipv4.ts'
import { findMac, isGroupMac, type Mac } from '#lib/mac.ts'
import { CHECK_IN_PHASES } from '#machine/lifecycle.ts'
import type { MachineDesk } from '#machine/ports.ts'

import { type Exchange, requireMethod, sendNothing, sendText } from './exchange.ts'
import { readBody } from './request-body.ts'
import { WAIT_MAX_SECONDS, waitForTarget } from './target-wait.ts'

export interface MachineDoor {
  readonly desk: MachineDesk
  readonly clock: Clock
}

const BODY_MAX_BYTES = 16 * 1024

const bootId = z.string().min(1).max(64)

/** A machine's words end up on a person's terminal, where control characters would be obeyed. */
const plain = (text: string) => text.replace(/\p{Cc}/gu, ' ')
const plainLines = (text: string) => text.replace(/[^\P{Cc}\n\t]/gu, ' ')

const shortText = z.string().max(256).transform(plain)

const STEP_REPORT = z.object({
  boot: bootId,
  step: z.string().regex(/^[a-z0-9][a-z0-9-]{0,63}$/, 'a step is lower-case letters, digits and dashes'),
  status: z.enum(['started', 'done', 'failed']),
  seconds: z.number().min(0).max(1e6).exactOptional(),
  message: z.string().max(1024).transform(plain).exactOptional(),
  log: z.string().transform(plainLines).exactOptional(),
})

const CHECK_IN = z.object({
  boot: bootId,
  phase: z.enum(CHECK_IN_PHASES),
  image: shortText.exactOptional(),
  bundle: z
    .string()
    .regex(/^[0-9a-f]{64}$/, 'a bundle is named by 64 hex digits')
    .exactOptional(),
  address: z
    .string()
    .refine((text) => findIpv4(text) !== undefined, 'an IPv4 address')
    .transform(parseIpv4)
    .exactOptional(),
  rebootReasons: z.array(shortText).max(64).exactOptional(),
})

export async function serveMachine(exchange: Exchange, path: string, door: MachineDoor): Promise<void> {
  const [name = '', what, ...rest] = path.split('/')
  const mac = findMac(name)
  if (mac === undefined || isGroupMac(mac)) {
    throw new KitError('invalid-input', "Cannot tell which machine this is: the path has no machine's MAC")
  }
  if (what === 'events' && rest.length === 0) return await takeReport(exchange, mac, door)
  if (what === 'check-in' && rest.length === 0) return await takeCheckIn(exchange, mac, door)
  if (what === 'target' && rest.length === 0) return await tellTarget(exchange, mac, door)
  throw new KitError('not-found', 'Cannot find this path: see docs/ports-and-endpoints.md')
}

async function takeReport(exchange: Exchange, mac: Mac, { desk }: MachineDoor): Promise<void> {
  requireMethod(exchange, 'POST')
  await desk.report(mac, await readBody(exchange.request, { shape: STEP_REPORT, maxBytes: BODY_MAX_BYTES }))
  sendNothing(exchange.response)
}

async function takeCheckIn(exchange: Exchange, mac: Mac, { desk }: MachineDoor): Promise<void> {
  requireMethod(exchange, 'POST')
  await desk.checkIn(mac, await readBody(exchange.request, { shape: CHECK_IN, maxBytes: BODY_MAX_BYTES }))
  sendNothing(exchange.response)
}

/** `name value` lines: the agent is a shell script. Nothing (204) when the machine has no role or there is no image. */
async function tellTarget(exchange: Exchange, mac: Mac, { desk, clock }: MachineDoor): Promise<void> {
  requireMethod(exchange, 'GET')
  const query = exchange.url.searchParams
  const waitSeconds = Number(query.get('wait') ?? 0)
  if (!Number.isInteger(waitSeconds) || waitSeconds < 0 || waitSeconds > WAIT_MAX_SECONDS) {
    throw new KitError('invalid-input', `Cannot wait: wait is whole seconds, at most ${WAIT_MAX_SECONDS}`)
  }
  const bundle = query.get('bundle') ?? ''
  const target = await waitForTarget(exchange, { desk, clock, mac, bundle, waitSeconds })
  if (exchange.response.destroyed) return
  if (target === undefined) sendNothing(exchange.response)
  else sendText(exchange.response, `image ${target.imageVersion}\nbundle ${target.bundleDigest}\n`)
}
