// The routes of the API about which machine is which: identities, pairing, approved TPMs.

import { z } from 'zod'

import { KitError } from '#lib/errors.ts'
import { findMac, parseMac } from '#lib/mac.ts'

import { API_BODY_MAX_BYTES, type ApiCall, type ApiRoute } from './api-route.ts'
import { readBody } from './request-body.ts'

const SHA256 = /^[0-9a-f]{64}$/

const PAIR_BODY = z.object({ code: z.string().min(1).max(32), replace: z.boolean().default(false) })
const APPROVAL_BODY = z.union([
  z.strictObject({
    mac: z
      .string()
      .refine((text) => findMac(text) !== undefined, 'a MAC')
      .transform(parseMac),
  }),
  z.strictObject({ ekSha256: z.string().regex(SHA256, '64 hex digits') }),
])

export const IDENTITY_ROUTES: readonly ApiRoute[] = [
  {
    method: 'get',
    path: '/identities',
    answer: (_call, { identities }) => ({
      identities: identities.list(),
      attempts: identities.attempts(),
      approvals: identities.approvals(),
    }),
  },
  {
    method: 'post',
    path: '/machines/:mac/pair',
    async answer(call, { identities }) {
      const { code, replace } = await bodyOf(call, PAIR_BODY)
      call.note({ replace }) // the code is no secret once it was typed, but it is of no use to the log
      return identities.pair(call.mac(), code, { replace, by: call.actor })
    },
  },
  {
    method: 'delete',
    path: '/machines/:mac/identity',
    async answer(call, { identities }) {
      await identities.forget(call.mac(), call.actor)
      return { mac: call.mac() }
    },
  },
  {
    method: 'post',
    path: '/approvals',
    async answer(call, { identities }) {
      const what = await bodyOf(call, APPROVAL_BODY)
      call.note({}, 'mac' in what ? what.mac : what.ekSha256)
      return identities.approve(what, call.actor)
    },
  },
  {
    method: 'delete',
    path: '/approvals/:ek',
    async answer(call, { identities }) {
      const ekSha256 = call.name('ek').toLowerCase()
      if (!SHA256.test(ekSha256)) {
        throw new KitError('invalid-input', 'Cannot tell which TPM this is: 64 hex digits were expected')
      }
      await identities.withdraw(ekSha256)
      return { ekSha256 }
    },
  },
]

function bodyOf<Shape extends z.ZodType>({ request }: ApiCall, shape: Shape): Promise<z.output<Shape>> {
  return readBody(request, { shape, maxBytes: API_BODY_MAX_BYTES })
}
