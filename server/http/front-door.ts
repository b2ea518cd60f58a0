// Every request of the HTTP service: which door it is for. The table is docs/ports-and-endpoints.md in code.

import type { IncomingMessage, ServerResponse } from 'node:http'

import { KitError } from '#lib/errors.ts'
import type { Log } from '#lib/log.ts'

import type { Api } from './api.ts'
import { type BootDoor, serveBoot } from './boot-door.ts'
import { type Exchange, requireMethod, sendError, sendJson } from './exchange.ts'
import { type FileDoor, serveBundle, serveImage, serveLoader } from './file-door.ts'
import { type FleetLockDoor, serveFleetLock } from './fleetlock.ts'
import { type MachineDoor, serveMachine } from './machine-door.ts'
import { type RegistryDoor, serveRegistry } from './registry-door.ts'
import { type ServerDoor, serveCa, serveChallenge, serveTime } from './server-door.ts'

export interface Doors extends BootDoor, FileDoor, FleetLockDoor, MachineDoor, RegistryDoor, ServerDoor {
  readonly api: Api
  /** Where HTTPS is. */
  readonly tlsPort: () => number
  readonly version: string
  readonly log: Log
}

interface Route {
  readonly prefix: string
  /** `rest` is what follows the prefix, not decoded: no name we know needs it. */
  readonly serve: (exchange: Exchange, rest: string, doors: Doors) => Promise<void> | void
}

export const ROUTES: readonly Route[] = [
  { prefix: '/boot/', serve: serveBoot },
  { prefix: '/loaders/', serve: serveLoader },
  { prefix: '/images/', serve: serveImage },
  { prefix: '/bundles/', serve: serveBundle },
  { prefix: '/v2/', serve: serveRegistry },
  { prefix: '/v1/machines/', serve: serveMachine },
  { prefix: '/v1/ca.pem', serve: serveCa },
  { prefix: '/v1/time', serve: serveTime },
  { prefix: '/.well-known/acme-challenge/', serve: serveChallenge },
  { prefix: '/fleetlock/v1/', serve: serveFleetLock },
  { prefix: '/api/v1/', serve: serveApi },
  { prefix: '/healthz', serve: serveHealth },
]

/** Never rejects: whatever goes wrong becomes an answer, or the end of the connection. */
export async function serveRequest(exchange: Omit<Exchange, 'url'>, doors: Doors): Promise<void> {
  const { request, response } = exchange
  try {
    if (!(await isItsTurn(request, response))) return
    response.setHeader('X-Content-Type-Options', 'nosniff')
    const url = parseTarget(request.url ?? '')
    const route = ROUTES.find(({ prefix }) => url.pathname.startsWith(prefix))
    if (route === undefined) throw notFound()
    await route.serve({ ...exchange, url }, url.pathname.slice(route.prefix.length), doors)
  } catch (error) {
    sendError(response, error, doors.log)
  }
}

/**
 * A client may send requests ahead of their answers (RFC 9112 §9.3.2). Each waits until the answers before it are
 * out: otherwise one packet of requests would make us read and hold hundreds of files' worth of answers.
 * Resolves with false when the connection ended meanwhile.
 */
function isItsTurn(request: IncomingMessage, response: ServerResponse): Promise<boolean> {
  if (response.socket !== null) return Promise.resolve(true)
  return new Promise((resolve) => {
    response.once('socket', () => resolve(true))
    request.once('close', () => resolve(false)) // nobody reads it yet, so it does not close by having been read
  })
}

function parseTarget(target: string): URL {
  // A path may begin with two slashes; only RFC 9112 §3.2.2's absolute form is a URL by itself.
  const isPath = target.startsWith('/')
  const url = isPath ? URL.parse(`http://kit${target}`) : URL.parse(target)
  if (url === null) throw new KitError('invalid-input', 'Cannot read the path of this request')
  return url
}

async function serveApi(exchange: Exchange, _rest: string, { api, tlsPort }: Doors): Promise<void> {
  const { request, response, isTrusted, transport } = exchange
  if (transport === 'plain') {
    const { localAddress = '' } = request.socket
    throw await api.refusePlain(request, `https://${localAddress.replace(/^::ffff:/, '')}:${tlsPort()}`)
  }
  if (isTrusted) api.trusted(request, response)
  else api.guarded(request, response)
}

function serveHealth(exchange: Exchange, rest: string, { version }: Doors): void {
  if (rest !== '') throw notFound()
  requireMethod(exchange, 'GET', 'HEAD')
  sendJson(exchange.response, 200, { status: 'ok', version })
}

function notFound(): KitError {
  return new KitError('not-found', 'Cannot find this path: see docs/ports-and-endpoints.md')
}
