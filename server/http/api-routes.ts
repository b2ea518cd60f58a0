// Every route of the API under /api/v1, in one table. docs/ports-and-endpoints.md has the same one for people.

import { KitError } from '#lib/errors.ts'
import { findMac, type Mac } from '#lib/mac.ts'
import type { EventQuery } from '#machine/ports.ts'

import { ACCESS_ROUTES } from './access-routes.ts'
import type { ApiRoute } from './api-route.ts'
import { CLUSTER_ROUTES } from './cluster-routes.ts'
import { IDENTITY_ROUTES } from './identity-routes.ts'
import { MACHINE_ROUTES } from './machine-routes.ts'
import { parsePage } from './page-query.ts'
import { REGISTRY_ROUTES } from './registry-routes.ts'
import { RELEASE_ROUTES } from './release-routes.ts'
import { SECRET_ROUTES } from './secret-routes.ts'

export const API_ROUTES: readonly ApiRoute[] = [
  ...MACHINE_ROUTES,
  ...IDENTITY_ROUTES,
  ...RELEASE_ROUTES,
  ...REGISTRY_ROUTES,
  ...SECRET_ROUTES,
  ...ACCESS_ROUTES,
  ...CLUSTER_ROUTES,
  {
    method: 'get',
    path: '/config',
    answer: (_call, { serverConfig, problems }) => ({ values: serverConfig(), problems: problems() }),
  },
  { method: 'get', path: '/ca', answer: (_call, { ca }) => ca },
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
]

/** Throws KitError `invalid-input`. */
export function parseEventQuery(query: URLSearchParams): EventQuery {
  const mac = query.get('mac')
  return { ...parsePage(query), ...(mac !== null && { mac: parseMacField(mac) }) }
}

/** Throws KitError `invalid-input`. */
export function parseMacField(text: string): Mac {
  const mac = findMac(text)
  if (mac === undefined) throw new KitError('invalid-input', `Cannot read a MAC: ${JSON.stringify(text)}`)
  return mac
}
