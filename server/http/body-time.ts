// How long a request may take to be here as a whole.

import type { IncomingMessage, ServerResponse } from 'node:http'

import type { Clock } from '#lib/clock.ts'

/** Gigabytes, on lines that may be slow: its connection is dropped when no byte moves, as every one is. */
const LONG_BODY = /^\/v1\/machines\/[^/?]+\/etcd-snapshot(?:\?|$)/

/** Node's own `requestTimeout` is the same for every path of a server. */
export function limitBodyTime(
  request: IncomingMessage,
  response: ServerResponse,
  { clock, timeoutMs }: { readonly clock: Clock; readonly timeoutMs: number },
): void {
  if (request.complete || (request.method === 'PUT' && LONG_BODY.test(request.url ?? ''))) return
  const cancel = clock.after(timeoutMs, () => {
    if (!request.complete) request.socket.destroy()
  })
  request.once('end', cancel)
  response.once('close', cancel)
}
