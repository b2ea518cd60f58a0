// Every route of the API under /api/v1, in one table. docs/ports-and-endpoints.md has the same one for people.

import type { IncomingMessage } from 'node:http'

import { z } from 'zod'

import { KitError } from '#lib/errors.ts'
import { findMac, type Mac } from '#lib/mac.ts'
import type {
  Bundles,
  EventLog,
  EventQuery,
  ExplainedValue,
  LeaseStore,
  MachineViews,
  ProfileProblem,
  Profiles,
  TokenStore,
} from '#machine/ports.ts'
import { findSettingRule } from '#machine/settings.ts'

import { readBody } from './request-body.ts'

export interface ApiParts {
  readonly views: MachineViews
  readonly profiles: Profiles
  /** Everything wrong in the profile tree and its overlays right now. */
  readonly problems: () => readonly ProfileProblem[]
  readonly bundles: Bundles
  readonly events: EventLog
  readonly leases: LeaseStore
  readonly tokens: TokenStore
  readonly serverConfig: () => readonly ExplainedValue[]
}

export interface ApiCall {
  readonly request: IncomingMessage
  readonly query: URLSearchParams
  /** The `:mac` of the path. Throws KitError `invalid-input`. */
  mac(): Mac
}

export interface ApiRoute {
  readonly method: 'get' | 'put' | 'post'
  readonly path: string
  /** Of the answer when all went well; 200 when absent. */
  readonly status?: number
  /** Resolves with the body of the answer. */
  readonly answer: (call: ApiCall, parts: ApiParts) => unknown
}

const BODY_MAX_BYTES = 64 * 1024
const EVENTS_MAX = 1_000

const ROLE_BODY = z.object({
  role: z.string().refine((role) => findSettingRule('role')?.check(role) === undefined, {
    error: 'lower-case letters, digits and dashes, at most 63',
  }),
})
const TOKEN_BODY = z.object({ name: z.string().trim().min(1).max(64) })

export const API_ROUTES: readonly ApiRoute[] = [
  {
    method: 'get',
    path: '/machines',
    answer: async (_call, { views }) => ({ machines: await views.list() }),
  },
  {
    method: 'get',
    path: '/machines/:mac',
    answer: async (call, { views }) => (await views.find(call.mac())) ?? refuseUnknown(call.mac()),
  },
  {
    method: 'put',
    path: '/machines/:mac/role',
    async answer(call, { profiles }) {
      const { role } = await readBody(call.request, { shape: ROLE_BODY, maxBytes: BODY_MAX_BYTES })
      await profiles.assignRole(call.mac(), role)
      return { mac: call.mac(), role }
    },
  },
  {
    method: 'get',
    path: '/machines/:mac/config',
    answer: (call, { profiles, problems }) => ({
      values: profiles.explain(call.mac()),
      problems: problems(),
    }),
  },
  {
    method: 'get',
    path: '/machines/:mac/overlay',
    async answer(call, { bundles }) {
      const [bundle, files] = await Promise.all([bundles.bundleFor(call.mac()), bundles.explain(call.mac())])
      return { digest: bundle.digest, files }
    },
  },
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
      const { name } = await readBody(call.request, { shape: TOKEN_BODY, maxBytes: BODY_MAX_BYTES })
      const made = await tokens.make(name, 'admin')
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

function refuseUnknown(mac: Mac): never {
  throw new KitError('not-found', `Cannot find machine ${mac}: it was never seen`)
}
