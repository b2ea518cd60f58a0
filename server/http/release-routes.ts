// The routes of the API about images, channels and rollouts.

import { z } from 'zod'

import { KitError } from '#lib/errors.ts'
import { didYouMean } from '#lib/nearest.ts'
import type { RolloutView } from '#machine/release-ports.ts'
import { findSettingRule } from '#machine/settings.ts'

import {
  API_BODY_MAX_BYTES,
  type ApiCall,
  type ApiParts,
  type ApiRoute,
  findImage,
  withoutLogin,
} from './api-route.ts'
import { inSilence } from './exchange.ts'
import { readBody } from './request-body.ts'

const CHANNEL = z.string().refine((name) => findSettingRule('channel')?.check(name) === undefined, {
  error: 'a channel is lower-case letters, digits and dashes, at most 63',
})
const IMPORT_BODY = z.object({
  source: z.string().min(1).max(4096),
  channel: CHANNEL.exactOptional(),
})
const PROMOTE_BODY = z.object({ version: z.string() })
const PAUSE_BODY = z.object({ paused: z.boolean() })

export const RELEASE_ROUTES: readonly ApiRoute[] = [
  {
    method: 'get',
    path: '/images',
    answer: async (_call, parts) => ({ images: await parts.releases.images() }),
  },
  {
    method: 'post',
    path: '/images/imports', // before the routes of one image, whose version could be called so
    status: 202,
    async answer(call, parts) {
      const body = await readBody(call.request, { shape: IMPORT_BODY, maxBytes: API_BODY_MAX_BYTES })
      const { source, channel } = body
      call.note({ source: withoutLogin(source), channel })
      const then = channel === undefined ? undefined : { channel, releases: parts.releases }
      return { id: parts.imports.start(source, parts.imageStore, then) }
    },
  },
  {
    method: 'get',
    path: '/images/imports/:id',
    answer(call, parts) {
      const progress = parts.imports.progress(call.name('id'), parts.imageStore)
      if (progress !== undefined) return progress
      throw new KitError('not-found', 'Cannot find this import: none has this id since the server started')
    },
  },
  {
    method: 'get',
    path: '/images/:version',
    answer: (call, parts) => findImage(parts, call.name('version')),
  },
  {
    method: 'delete',
    path: '/images/:version',
    async answer(call, parts) {
      const version = call.name('version')
      await parts.releases.removeImage(version)
      return { version }
    },
  },
  {
    method: 'post',
    path: '/images/:version/verify',
    async answer(call, parts) {
      const { version } = await findImage(parts, call.name('version'))
      const problems = await inSilence(call.request.socket, () => parts.imageStore.verify(version))
      return { version, problems }
    },
  },
  {
    method: 'get',
    path: '/channels',
    answer: async (_call, parts) => ({ channels: await parts.releases.channels() }),
  },
  {
    method: 'put',
    path: '/channels/:channel',
    async answer(call, parts) {
      const channel = channelOf(call)
      const { version } = await readBody(call.request, { shape: PROMOTE_BODY, maxBytes: API_BODY_MAX_BYTES })
      call.note({ version })
      return parts.releases.promote(version, channel)
    },
  },
  {
    method: 'post',
    path: '/channels/:channel/pause',
    async answer(call, parts) {
      const channel = channelOf(call)
      const { paused } = await readBody(call.request, { shape: PAUSE_BODY, maxBytes: API_BODY_MAX_BYTES })
      call.note({ paused })
      return parts.releases.pause(channel, paused)
    },
  },
  {
    method: 'get',
    path: '/rollouts',
    answer: async (_call, parts) => ({ rollouts: await parts.releases.rollouts() }),
  },
  { method: 'post', path: '/rollouts/:channel/pause', answer: (call, parts) => setPaused(call, parts, true) },
  {
    method: 'post',
    path: '/rollouts/:channel/resume',
    answer: (call, parts) => setPaused(call, parts, false),
  },
  {
    method: 'post',
    path: '/rollouts/:channel/retry',
    answer: (call, parts) => parts.releases.retry(channelOf(call)),
  },
  {
    method: 'get',
    path: '/quarantines',
    answer: async (_call, parts) => ({ quarantines: await parts.releases.quarantines() }),
  },
  {
    method: 'delete',
    path: '/quarantines/:version',
    async answer(call, parts) {
      const version = call.name('version')
      await parts.releases.lift(version)
      return { version }
    },
  },
  {
    method: 'get',
    path: '/locks',
    answer: async (_call, parts) => ({ locks: await parts.releases.locks() }),
  },
  {
    method: 'delete',
    path: '/locks/:channel/:holder',
    async answer(call, parts) {
      const [channel, holder] = [channelOf(call), call.name('holder')]
      await parts.releases.releaseLock(channel, holder)
      return { channel, holder }
    },
  },
]

async function setPaused(call: ApiCall, parts: ApiParts, isPaused: boolean): Promise<RolloutView> {
  const { channel } = await findRollout(call, parts)
  await parts.releases.pause(channel, isPaused)
  return findRollout(call, parts)
}

async function findRollout(call: ApiCall, parts: ApiParts): Promise<RolloutView> {
  const channel = channelOf(call)
  const rollouts = await parts.releases.rollouts()
  const rollout = rollouts.find((each) => each.channel === channel)
  if (rollout !== undefined) return rollout
  const nearest = didYouMean(
    channel,
    rollouts.map((each) => each.channel),
  )
  throw new KitError(
    'not-found',
    `Cannot find a rollout of channel ${channel}: it points at no image${nearest}`,
    {
      fix: 'kateskit channel promote <version> <channel> starts one',
    },
  )
}

/** Throws KitError `invalid-input` for what can be no channel. */
function channelOf(call: ApiCall): string {
  const outcome = CHANNEL.safeParse(call.name('channel'))
  if (outcome.success) return outcome.data
  throw new KitError('invalid-input', `Cannot use this channel: ${outcome.error.issues[0]?.message}`)
}
