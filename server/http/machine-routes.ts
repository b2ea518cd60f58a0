// The routes of the API about one machine or all of them.

import { z } from 'zod'

import { KitError } from '#lib/errors.ts'
import type { Mac } from '#lib/mac.ts'
import { findSettingRule } from '#machine/settings.ts'

import { API_BODY_MAX_BYTES, type ApiRoute } from './api-route.ts'
import { readBody } from './request-body.ts'

const ROLE_BODY = z.object({
  role: z.string().refine((role) => findSettingRule('role')?.check(role) === undefined, {
    error: 'lower-case letters, digits and dashes, at most 63',
  }),
})
const POWERWASH_BODY = z.object({ persistence: z.boolean().default(false) })
const PIN_BODY = z.object({ version: z.string() })

export const MACHINE_ROUTES: readonly ApiRoute[] = [
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
      const { role } = await readBody(call.request, { shape: ROLE_BODY, maxBytes: API_BODY_MAX_BYTES })
      call.note({ role })
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
    path: '/machines/:mac/plan',
    answer: (call, parts) => parts.powerwashes.plan(call.mac()),
  },
  {
    method: 'post',
    path: '/machines/:mac/powerwash',
    async answer(call, parts) {
      const shape = { shape: POWERWASH_BODY, maxBytes: API_BODY_MAX_BYTES, isOptional: true }
      const { persistence } = await readBody(call.request, shape)
      call.note({ persistence })
      return parts.powerwashes.request(call.mac(), persistence ? 'wipe' : 'keep')
    },
  },
  {
    method: 'delete',
    path: '/machines/:mac/powerwash',
    answer: (call, parts) => parts.powerwashes.cancel(call.mac()),
  },
  {
    method: 'put',
    path: '/machines/:mac/pin',
    async answer(call, parts) {
      const mac = call.mac()
      const { version } = await readBody(call.request, { shape: PIN_BODY, maxBytes: API_BODY_MAX_BYTES })
      call.note({ version })
      await parts.releases.pin(mac, version)
      return { mac, pin: version }
    },
  },
  {
    method: 'delete',
    path: '/machines/:mac/pin',
    async answer(call, parts) {
      await parts.releases.pin(call.mac(), undefined)
      return { mac: call.mac() }
    },
  },
]

function refuseUnknown(mac: Mac): never {
  throw new KitError('not-found', `Cannot find machine ${mac}: it was never seen`)
}
