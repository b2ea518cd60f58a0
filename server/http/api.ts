// The API under /api/v1: express around the routes of api-routes.ts.

import type { IncomingMessage, ServerResponse } from 'node:http'

import express, { type Express, type NextFunction, type Request, type Response } from 'express'

import type { Clock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import type { Log } from '#lib/log.ts'

import { ApiAudit, AuditNote } from './api-audit.ts'
import { Gate } from './api-auth.ts'
import type { ApiCall, ApiParts, ApiRoute, RouteParts } from './api-route.ts'
import { API_ROUTES, parseMacField } from './api-routes.ts'
import { type Caller, CONTROL_SOCKET, neededRole, requireRole } from './caller.ts'
import { serveEventStream } from './event-stream.ts'
import { sendError, sendJson } from './exchange.ts'
import { Imports } from './imports.ts'

export interface ApiOptions extends ApiParts {
  readonly clock: Clock
  readonly log: Log
  /** Ends the event streams. */
  readonly stopping: AbortSignal
}

const PREFIX = '/api/v1'

export interface Api {
  /** For sockets whose users are admins already. */
  readonly trusted: (request: IncomingMessage, response: ServerResponse) => void
  /** For everybody else: wants a token. */
  readonly guarded: (request: IncomingMessage, response: ServerResponse) => void
  /** The refusal of a request over plain HTTP. */
  readonly refusePlain: Gate['refusePlain']
  /** Resolves when all that was refused is written down. */
  stop(): Promise<void>
}

interface AppParts extends ApiOptions, RouteParts {
  readonly trail: ApiAudit
  readonly admit: (request: Request, response: Response) => Promise<Caller>
}

export function createApi(options: ApiOptions): Api {
  const trail = new ApiAudit(options)
  const gate = new Gate({ tokens: options.tokens, audit: trail, clock: options.clock })
  const parts = { ...options, imports: new Imports(options.log), trail }
  return {
    trusted: newApp({ ...parts, admit: async () => CONTROL_SOCKET }),
    guarded: newApp({ ...parts, admit: (request, response) => gate.admit(request, response) }),
    refusePlain: (request, httpsUrl) => gate.refusePlain(request, httpsUrl),
    stop: () => trail.stop(),
  }
}

function newApp(parts: AppParts): Express {
  const app = express()
  app.disable('x-powered-by')
  app.disable('etag')
  app.enable('case sensitive routing')
  const callers = new WeakMap<Request, Caller>()
  app.use(async (request, response, next) => {
    callers.set(request, await parts.admit(request, response))
    next()
  })
  addRoutes(app, parts, (request) => callers.get(request) ?? nobody())
  return app
}

/** No request gets past `admit` without one. */
function nobody(): never {
  throw new KitError('internal', 'Cannot tell who calls')
}

function addRoutes(app: Express, parts: AppParts, callerOf: (request: Request) => Caller): void {
  app.get(`${PREFIX}/events`, async (request, response, next) => {
    if (!request.headers.accept?.includes('text/event-stream')) return next()
    const caller = callerOf(request)
    requireRole(caller, 'viewer')
    const mayGoOn = () => caller.mayGoOn()
    await serveEventStream({ request, response, query: queryOf(request), mayGoOn }, parts)
  })
  for (const route of API_ROUTES) {
    app[route.method](`${PREFIX}${route.path}`, async (request, response) => {
      const body = await answer(route, { request, caller: callerOf(request), parts })
      sendJson(response, route.status ?? 200, body)
    })
  }
  for (const [path, routes] of Map.groupBy(API_ROUTES, ({ path }) => path)) {
    app.all(`${PREFIX}${path}`, (request, response) => refuseMethod(request, response, routes))
  }
  app.use(() => {
    throw new KitError('not-found', 'Cannot find this path: see docs/ports-and-endpoints.md')
  })
  // Express knows an error handler by its four parameters.
  app.use((error: unknown, _request: Request, response: Response, _next: NextFunction) => {
    sendError(
      response,
      isBadPath(error) ? new KitError('invalid-input', 'Cannot read this path') : error,
      parts.log,
    )
  })
}

interface Asked {
  readonly request: Request
  readonly caller: Caller
  readonly parts: AppParts
}

async function answer(route: ApiRoute, { request, caller, parts }: Asked): Promise<unknown> {
  const note = new AuditNote(caller, route, request.params)
  try {
    requireRole(caller, neededRole(route))
  } catch (error) {
    parts.trail.roleRefused(note)
    throw error
  }
  const work = async () => route.answer(callOf(request, { caller, note }), parts)
  return route.method === 'get' ? work() : parts.trail.record(note, work)
}

function callOf(request: Request, { caller, note }: { caller: Caller; note: AuditNote }): ApiCall {
  return {
    request,
    actor: caller.actor,
    query: queryOf(request),
    mac: () => parseMacField(String(request.params['mac'])),
    name: (hole) => String(request.params[hole]),
    note: note.add,
  }
}

function queryOf(request: Request): URLSearchParams {
  return new URLSearchParams(request.url.split('?').slice(1).join('?'))
}

function refuseMethod(request: Request, response: Response, routes: readonly ApiRoute[]): never {
  const allowed = routes.map(({ method }) => method.toUpperCase()).join(', ')
  response.setHeader('Allow', allowed)
  throw new KitError('method-not-allowed', `Cannot ${request.method} here: only ${allowed}`)
}

/** What express's router throws for `%zz`: an URIError with a status. */
function isBadPath(error: unknown): boolean {
  return error instanceof URIError
}
