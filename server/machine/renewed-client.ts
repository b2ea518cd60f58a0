// One client certificate, kept as long as it is good and renewed in the last third of its life.

import type { Clock } from '#lib/clock.ts'

/**
 * Whoever calls gets the one that is kept. A renewal that fails is tried again by the next call; until the old one ends that
 * is what is given. Calls at the same time share one renewal.
 */
export function keepClient<Client extends { readonly untilMs: number }>(
  issue: () => Promise<Client>,
  clock: Clock,
): () => Promise<Client> {
  let kept: { readonly client: Client; readonly renewMs: number } | undefined
  let renewing: Promise<Client> | undefined

  async function renew(): Promise<Client> {
    const nowMs = clock.nowMs()
    try {
      const client = await issue()
      kept = { client, renewMs: client.untilMs - (client.untilMs - nowMs) / 3 }
      return client
    } catch (error) {
      if (kept === undefined || clock.nowMs() >= kept.client.untilMs) throw error
      return kept.client
    } finally {
      renewing = undefined
    }
  }

  return async () => {
    if (kept !== undefined && clock.nowMs() < kept.renewMs) return kept.client
    renewing ??= renew()
    return await renewing
  }
}
