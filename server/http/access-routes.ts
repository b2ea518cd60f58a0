// The routes of the API about people and programs: their tokens, and the log of what they did. For admins only.

import { z } from 'zod'

import { KitError } from '#lib/errors.ts'
import { TOKEN_ROLES } from '#machine/access-ports.ts'

import { API_BODY_MAX_BYTES, type ApiRoute } from './api-route.ts'
import { inSilence } from './exchange.ts'
import { parsePage } from './page-query.ts'
import { readBody } from './request-body.ts'

const DAY_MS = 86_400_000

const TOKEN_BODY = z.object({
  // It stands in logs beside others' words: nothing invisible, nothing that a terminal obeys.
  name: z
    .string()
    .trim()
    .min(1)
    .max(64)
    .regex(/^\P{C}*$/u, { error: 'no control or invisible characters' }),
  role: z.enum(TOKEN_ROLES).default('viewer'),
  days: z.int().min(1).max(3_650).exactOptional(),
})

export const ACCESS_ROUTES: readonly ApiRoute[] = [
  {
    method: 'get',
    path: '/tokens',
    needs: 'admin',
    answer: async (_call, { tokens }) => ({ tokens: await tokens.list() }),
  },
  {
    method: 'post',
    path: '/tokens',
    needs: 'admin',
    status: 201,
    async answer(call, { tokens, events, clock }) {
      const body = await readBody(call.request, { shape: TOKEN_BODY, maxBytes: API_BODY_MAX_BYTES })
      const { name, role, days } = body
      call.note({ name, role, days })
      const expiresMs = days === undefined ? undefined : clock.nowMs() + days * DAY_MS
      const made = await tokens.make({ name, role, ...(expiresMs !== undefined && { expiresMs }) })
      const { id } = made.info
      call.note({}, id)
      const message = `${role} token ${name} made by ${call.actor}`
      await events.append({ kind: 'token-made', message, data: { token: id, role } })
      return made
    },
  },
  {
    method: 'delete',
    path: '/tokens/:id',
    needs: 'admin',
    async answer(call, { tokens, events }) {
      const token = await tokens.revoke(call.name('id'))
      call.note({ name: token.name })
      const message = `token ${token.name} revoked by ${call.actor}`
      await events.append({ kind: 'token-revoked', message, data: { token: token.id } })
      return token
    },
  },
  {
    method: 'get',
    path: '/audit',
    needs: 'admin',
    answer: async ({ query }, { audit }) => ({ entries: await audit.list(parsePage(query)) }),
  },
  {
    method: 'get',
    path: '/audit/verify',
    needs: 'admin',
    answer: ({ query, request }, { audit }) => {
      const head = query.get('head') ?? undefined
      if (head !== undefined && !/^[0-9a-f]{64}$/.test(head)) {
        throw new KitError('invalid-input', 'Cannot read head: 64 hex digits were expected', {
          fix: 'kateskit audit verify prints the head of today',
        })
      }
      return inSilence(request.socket, () => audit.verify(head))
    },
  },
]
