// The routes of the API about the cluster: what it is, getting into it, adopting and forgetting it, snapshots of etcd.

import { z } from 'zod'

import { API_BODY_MAX_BYTES, type ApiRoute } from './api-route.ts'
import { inSilence } from './exchange.ts'
import { readBody } from './request-body.ts'

/** A kubeconfig has certificates in it. */
const KUBECONFIG_MAX_BYTES = 256 * 1024

const KUBECONFIG_BODY = z.object({ days: z.int().min(1).max(365).default(1) })
const ADOPT_BODY = z.object({ kubeconfig: z.string().min(1) })
const RESTORE_BODY = z.object({ sha256: z.string().regex(/^[0-9a-f]{64}$/, '64 hex digits') })

export const CLUSTER_ROUTES: readonly ApiRoute[] = [
  { method: 'get', path: '/cluster', answer: (_call, { clusters }) => clusters.view() },
  {
    method: 'delete',
    path: '/cluster',
    needs: 'admin',
    async answer(call, { clusters }) {
      await clusters.forget(call.actor)
      return clusters.view()
    },
  },
  {
    method: 'post',
    path: '/cluster/kubeconfig',
    needs: 'admin',
    async answer(call, { clusters }) {
      const shape = { shape: KUBECONFIG_BODY, maxBytes: API_BODY_MAX_BYTES, isOptional: true }
      const { days } = await readBody(call.request, shape)
      call.note({ days })
      return { kubeconfig: await clusters.kubeconfig(days, call.actor) }
    },
  },
  {
    method: 'post',
    path: '/cluster/adopt',
    needs: 'admin',
    async answer(call, { clusters }) {
      const { kubeconfig } = await readBody(call.request, {
        shape: ADOPT_BODY,
        maxBytes: KUBECONFIG_MAX_BYTES,
      })
      return inSilence(call.request.socket, () => clusters.adopt(kubeconfig, call.actor))
    },
  },
  {
    method: 'delete',
    path: '/machines/:mac',
    needs: 'admin',
    async answer(call, { clusters }) {
      const mac = call.mac()
      const force = ['', '1', 'yes', 'true'].includes(call.query.get('force') ?? 'no')
      call.note({ force })
      await inSilence(call.request.socket, () => clusters.removeMachine(mac, { force, by: call.actor }))
      return { mac }
    },
  },
  {
    method: 'get',
    path: '/etcd/snapshots',
    needs: 'admin',
    answer: (_call, { clusters }) => ({
      snapshots: clusters.snapshots().map(({ file: _onDisk, ...snapshot }) => snapshot),
    }),
  },
  {
    method: 'post',
    path: '/etcd/restore',
    needs: 'admin',
    async answer(call, { clusters }) {
      const { sha256 } = await readBody(call.request, { shape: RESTORE_BODY, maxBytes: API_BODY_MAX_BYTES })
      call.note({}, sha256)
      const { id, restoreFrom } = await clusters.restoreFrom(sha256, call.actor)
      return { id, restoreFrom }
    },
  },
]
