// The routes of the API about the registry: what is in it, filling it, removing from it, reading it through.

import { z } from 'zod'

import { KitError } from '#lib/errors.ts'
import type { ContainerRegistry } from '#machine/registry-ports.ts'

import { API_BODY_MAX_BYTES, type ApiParts, type ApiRoute, withoutLogin } from './api-route.ts'
import { inSilence } from './exchange.ts'
import { readBody } from './request-body.ts'

const IMPORT_BODY = z.object({
  source: z.string().min(1).max(4096),
  name: z.string().min(1).max(512).exactOptional(),
})
const VERIFY_BODY = z.object({ name: z.string().min(1).max(512).exactOptional() })

export const REGISTRY_ROUTES: readonly ApiRoute[] = [
  {
    method: 'get',
    path: '/registry/images',
    answer: (_call, parts) => ({ images: registryOf(parts).list() }),
  },
  {
    method: 'delete',
    path: '/registry/images',
    async answer(call, parts) {
      const name = call.query.get('name')
      if (name === null)
        throw new KitError('invalid-input', 'Cannot remove an image: the request does not say which (?name=)')
      call.note({}, name.slice(0, 512))
      await registryOf(parts).remove(name)
      return { name }
    },
  },
  {
    method: 'post',
    path: '/registry/imports',
    status: 202,
    async answer(call, parts) {
      const body = await readBody(call.request, { shape: IMPORT_BODY, maxBytes: API_BODY_MAX_BYTES })
      const { source, name } = body
      call.note({ source: withoutLogin(source), name })
      return { id: registryOf(parts).startImport(source, name) }
    },
  },
  {
    method: 'get',
    path: '/registry/imports/:id',
    answer(call, parts) {
      const progress = registryOf(parts).importProgress(call.name('id'))
      if (progress !== undefined) return progress
      throw new KitError('not-found', 'Cannot find this import: none has this id since the server started')
    },
  },
  {
    method: 'post',
    path: '/registry/verify',
    async answer(call, parts) {
      const { name } = await readBody(call.request, {
        shape: VERIFY_BODY,
        maxBytes: API_BODY_MAX_BYTES,
        isOptional: true,
      })
      call.note({}, name)
      const images = await inSilence(call.request.socket, () => registryOf(parts).verify(name))
      return { images }
    },
  },
]

function registryOf({ registry }: ApiParts): ContainerRegistry {
  if (registry !== undefined) return registry
  throw new KitError('unavailable', 'Cannot use the registry: this server has none')
}
