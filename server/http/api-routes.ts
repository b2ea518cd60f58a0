// Every route of the API under /api/v1, in one table. docs/ports-and-endpoints.md has the same one for people.

import { z } from 'zod'

import { KitError } from '#lib/errors.ts'
import { findMac, type Mac } from '#lib/mac.ts'
import type { EventQuery } from '#machine/ports.ts'

import { API_BODY_MAX_BYTES, type ApiRoute } from './api-route.ts'
import { MACHINE_ROUTES } from './machine-routes.ts'
import { RELEASE_ROUTES } from './release-routes.ts'
import { readBody } from './request-body.ts'

const EVENTS_MAX = 1_000

const TOKEN_BODY = z.object({ name: z.string().trim().min(1).max(64) })

export const API_ROUTES: readonly ApiRoute[] = [
  ...MACHINE_ROUTES,
  ...RELEASE_ROUTES,
  {
    method: 'get',
    path: '/config',
    answer: (_call, { serverConfig, problems }) => ({ values: serverConfig(), problems: problems() }),
  },
  { method: 'get', path: '/roles', answer: (_call, { profiles }) => ({ roles: profiles.roles() }) },
  {
    method: 'get',
    path: '/leases',
    answer: async (_call, { leases }) => ({ leases: await leases.list() }),
  },
  {
    method: 'get',
    path: '/events', // as a stream: event-stream.ts
    answer: async ({ query }, { events }) => ({ events: await events.list(parseEventQuery(query)) }),
  },
  {
    method: 'get',
    path: '/tokens',
    answer: async (_call, { tokens }) => ({ tokens: await tokens.list() }),
  },
  {
    method: 'post',
    path: '/tokens',
    status: 201,
    async answer(call, { tokens, events }) {
      const { name } = await readBody(call.request, { shape: TOKEN_BODY, maxBytes: API_BODY_MAX_BYTES })
      const made = await tokens.make({ name, role: 'admin' })
      await events.append({
        kind: 'token-made',
        message: `token ${name} made`,
        data: { token: made.info.id },
      })
      return made
    },
  },
]

/** Throws KitError `invalid-input`. */
export function parseEventQuery(query: URLSearchParams): EventQuery {
  const mac = query.get('mac')
  const afterId = query.get('after')
  return {
    limit: parseWhole('limit', query.get('limit') ?? '100', EVENTS_MAX),
    ...(mac !== null && { mac: parseMacField(mac) }),
    ...(afterId !== null && { afterId: parseWhole('after', afterId, Number.MAX_SAFE_INTEGER) }),
  }
}

/** Throws KitError `invalid-input`. */
export function parseMacField(text: string): Mac {
  const mac = findMac(text)
  if (mac === undefined) throw new KitError('invalid-input', `Cannot read a MAC: ${JSON.stringify(text)}`)
  return mac
}

export function parseWhole(name: string, text: string, max: number): number {
  const value = Number(text)
  if (/^\d{1,16}$/.test(text) && value <= max) return value
  throw new KitError('invalid-input', `Cannot read ${name}: a whole number up to ${max} was expected`)
}
