// The API under /api/v1: express around the routes of api-routes.ts.

import type { IncomingMessage, ServerResponse } from 'node:http'

import express, { type Express, type NextFunction, type Request, type Response } from 'express'

import type { Clock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import type { Log } from '#lib/log.ts'

import { requireToken } from './api-auth.ts'
import type { ApiCall, ApiParts, ApiRoute, RouteParts } from './api-route.ts'
import { API_ROUTES, parseMacField } from './api-routes.ts'
import { serveEventStream } from './event-stream.ts'
import { sendError, sendJson } from './exchange.ts'
import { Imports } from './imports.ts'
import { LoginLimit } from './login-limit.ts'

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
}

export function createApi(options: ApiOptions): Api {
  const guarded = newApp()
  guarded.use(requireToken(options.tokens, new LoginLimit(options.clock)))
  const trusted = newApp()
  const parts = { ...options, imports: new Imports(options.log) }
  for (const app of [guarded, trusted]) addRoutes(app, parts)
  return { trusted, guarded }
}

function newApp(): Express {
  const app = express()
  app.disable('x-powered-by')
  app.disable('etag')
  app.enable('case sensitive routing')
  return app
}

function addRoutes(app: Express, options: ApiOptions & RouteParts): void {
  app.get(`${PREFIX}/events`, async (request, response, next) => {
    if (!request.headers.accept?.includes('text/event-stream')) return next()
    await serveEventStream({ request, response, query: queryOf(request) }, options)
  })
  for (const route of API_ROUTES) {
    app[route.method](`${PREFIX}${route.path}`, async (request, response) => {
      const body = await route.answer(callOf(request), options)
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
      options.log,
    )
  })
}

function callOf(request: Request): ApiCall {
  return {
    request,
    query: queryOf(request),
    mac: () => parseMacField(String(request.params['mac'])),
    name: (hole) => String(request.params[hole]),
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
