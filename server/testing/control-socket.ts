// Requests over a unix socket, as the command line sends them.

import { request } from 'node:http'

export interface UnixAnswer {
  readonly status: number
  /** Parsed when it is JSON, else text. */
  readonly body: unknown
}

export function createUnixFetch(socketPath: string) {
  return (path: string, init: { method?: string; body?: unknown } = {}): Promise<UnixAnswer> => {
    const { promise, resolve, reject } = Promise.withResolvers<UnixAnswer>()
    const { method = 'GET', body } = init
    const sent = request({ socketPath, path, method, agent: false }, async (response) => {
      try {
        const text = Buffer.concat(await response.toArray()).toString()
        const isJson = response.headers['content-type'] === 'application/json'
        resolve({ status: response.statusCode ?? 0, body: isJson ? JSON.parse(text) : text })
      } catch (error) {
        reject(error)
      }
    })
    sent.on('error', reject)
    sent.end(body === undefined ? undefined : JSON.stringify(body))
    return promise
  }
}
