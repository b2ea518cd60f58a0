// `/fleetlock/v1/`: the FleetLock protocol (github.com/coreos/zincati, docs/development/fleetlock/protocol.md), so that
// other tools' restarts and our updates share one lock. The group is a channel.

import type { ServerResponse } from 'node:http'

import { z } from 'zod'

import { ERROR_STATUS, type ErrorCode, KitError } from '#lib/errors.ts'
import type { Log } from '#lib/log.ts'
import type { Releases } from '#machine/release-ports.ts'

import { closeAfter, type Exchange, requireMethod, sendJson, toKitError } from './exchange.ts'
import { readBody } from './request-body.ts'

export interface FleetLockDoor {
  /** Setting fleetlock/enabled. */
  readonly isFleetLockOn: boolean
  readonly releases: Releases
  readonly log: Log
}

const FIX = 'set fleetlock/enabled to true and restart the server; it gives the lock to anybody who asks'

const BODY_MAX_BYTES = 4 * 1024

const BODY = z.object({
  client_params: z.object({
    group: z
      .string()
      .regex(/^[a-zA-Z0-9.-]{1,63}$/, 'a group is letters, digits, dots and dashes, at most 63'),
    id: z.string().regex(/^[\x21-\x7e]{1,128}$/, 'an id is at most 128 printable characters without blanks'),
  }),
})

/** The protocol wants few kinds, for clients count them. */
const KINDS: Partial<Record<ErrorCode, string>> = {
  'invalid-input': 'invalid_client_params',
  conflict: 'failed_lock_semaphore_full',
}

/** Empty 200 on success; errors are `{kind, value}`, the protocol's own form. */
export async function serveFleetLock(exchange: Exchange, path: string, door: FleetLockDoor): Promise<void> {
  const { request, response } = exchange
  try {
    if (!door.isFleetLockOn) {
      throw new KitError('not-found', 'Cannot answer FleetLock: it is switched off', { fix: FIX })
    }
    if (path !== 'pre-reboot' && path !== 'steady-state') {
      throw new KitError('not-found', 'Cannot find this path: there are pre-reboot and steady-state')
    }
    requireMethod(exchange, 'POST')
    if (request.headers['fleet-lock-protocol'] !== 'true') {
      const value = 'Cannot take this request: the header fleet-lock-protocol: true is missing'
      sendJson(response, 400, { kind: 'missing_fleetlock_header', value })
      return
    }
    await answer(exchange, path, door.releases)
    response.writeHead(200, { 'Content-Length': 0, 'Cache-Control': 'no-store' }).end()
  } catch (error) {
    refuse(response, error, door.log)
  }
}

async function answer({ request }: Exchange, path: string, releases: Releases): Promise<void> {
  const { client_params: client } = await readBody(request, { shape: BODY, maxBytes: BODY_MAX_BYTES })
  if (path === 'steady-state') return await releases.unlock(client.group, client.id)
  const { isHeld, holder } = await releases.lock(client.group, client.id)
  if (isHeld) return
  throw new KitError('conflict', `Cannot let ${client.id} restart: ${whyNot(client.id, holder)}`)
}

function whyNot(id: string, holder: string | undefined): string {
  if (holder === undefined) return 'nobody may now'
  // UpdateLock.holder in machine/ports.ts
  return holder === `fleetlock:${id}` ? 'it has the lock of another group' : `${holder} has the lock`
}

function refuse(response: ServerResponse, thrown: unknown, log: Log): void {
  const error = toKitError(thrown)
  const { code, message, fix } = error
  if (ERROR_STATUS[code] >= 500) log.error({ err: thrown }, message)
  closeAfter(response, code)
  const kind = KINDS[code] ?? code.replaceAll('-', '_')
  sendJson(response, ERROR_STATUS[code], { kind, value: fix === undefined ? message : `${message}; ${fix}` })
}
