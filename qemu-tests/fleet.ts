// Images, channels, rollouts and powerwashes of a test's server, through its API.

import { KitError } from '#lib/errors.ts'
import { createJsonHttp } from '#lib/json-http.ts'
import { type Mac, macToPath } from '#lib/mac.ts'
import { pollUntil } from '#lib/retry.ts'
import type { ImportProgress, PlanView } from '#machine/ports.ts'
import type { ImageView, RolloutView } from '#machine/release-ports.ts'

export interface Fleet {
  /** Resolves with the version when the image is in the store. Throws KitError with the server's own words. */
  importImage(folder: string): Promise<string>
  promote(version: string, channel: string): Promise<void>
  images(): Promise<readonly ImageView[]>
  rollout(channel: string): Promise<RolloutView | undefined>
  retry(channel: string): Promise<void>
  /** What `kateskit plan` says. */
  plan(mac: Mac): Promise<PlanView>
  powerwash(mac: Mac, options?: { readonly persistence: boolean }): Promise<void>
}

/** A hundred megabytes are copied, hashed and cut into chunks while two emulated machines may be at work. */
const IMPORT_TIMEOUT_MS = 5 * 60_000

export function createFleet(controlSocket: string): Fleet {
  const http = createJsonHttp({ kind: 'socket', path: controlSocket })
  const get = async <T>(path: string) => (await http.request('GET', `/api/v1${path}`)) as T
  return {
    async importImage(source) {
      const { id } = (await http.request('POST', '/api/v1/images/imports', { source })) as { id: string }
      return pollUntil(() => get<ImportProgress>(`/images/imports/${id}`).then(versionOf), {
        everyMs: 500,
        timeoutMs: IMPORT_TIMEOUT_MS,
        late: () => new KitError('unavailable', `Cannot import ${source}: still at it`),
      })
    },
    async promote(version, channel) {
      await http.request('PUT', `/api/v1/channels/${channel}`, { version })
    },
    images: async () => (await get<{ images: ImageView[] }>('/images')).images,
    async rollout(channel) {
      const { rollouts } = await get<{ rollouts: RolloutView[] }>('/rollouts')
      return rollouts.find((rollout) => rollout.channel === channel)
    },
    async retry(channel) {
      await http.request('POST', `/api/v1/rollouts/${channel}/retry`)
    },
    plan: (mac) => get(`/machines/${macToPath(mac)}/plan`),
    async powerwash(mac, options = { persistence: false }) {
      await http.request('POST', `/api/v1/machines/${macToPath(mac)}/powerwash`, options)
    },
  }
}

function versionOf(progress: ImportProgress): string | undefined {
  if (progress.state === 'failed') throw new KitError('unavailable', progress.error)
  return progress.state === 'done' ? progress.version : undefined
}
