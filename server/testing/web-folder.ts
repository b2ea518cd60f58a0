// A web server over a folder that fails as web servers do: cuts connections, ignores ranges, changes files.

import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'

import type { ExecutionContext } from 'ava'

import { sha256 } from './image-folder.ts'

export interface WebFolder {
  readonly url: string
  /** `GET /root.squashfs bytes=5-` of every request so far. */
  readonly asked: string[]
  /** How many bytes of bodies went out. */
  sentBytes(): number
  /** The next answers with a body end after so many bytes of it. */
  cutAfter(bytes: number, times?: number): void
  ignoresRanges: boolean
  /** What is answered instead of 200 and the file. */
  status: number | undefined
  /** Called before each answer. */
  onRequest: (path: string) => void
  stop(): Promise<void>
}

export async function serveFolder(t: ExecutionContext, folder: string): Promise<WebFolder> {
  const cuts: number[] = []
  let sent = 0
  const answer = (request: IncomingMessage, response: ServerResponse) => {
    const path = new URL(request.url ?? '/', 'http://x').pathname
    web.onRequest(path)
    web.asked.push(`${request.method} ${path} ${request.headers.range ?? ''}`.trim())
    const file = join(folder, path)
    if (web.status !== undefined || !existsSync(file)) {
      response.writeHead(web.status ?? 404).end('no')
      return
    }
    const bytes = readFileSync(file)
    const etag = `"${sha256(bytes)}"`
    const { range, 'if-range': condition } = request.headers
    const isPart = !web.ignoresRanges && range !== undefined && condition === etag
    const start = isPart ? Number(/^bytes=(\d+)-$/.exec(range)?.[1]) : 0
    if (start >= bytes.length && isPart) {
      response.writeHead(416, { 'content-range': `bytes */${bytes.length}` }).end()
      return
    }
    response.writeHead(isPart ? 206 : 200, {
      'content-length': bytes.length - start,
      etag,
      ...(isPart && { 'content-range': `bytes ${start}-${bytes.length - 1}/${bytes.length}` }),
    })
    const cut = cuts.shift()
    const body = bytes.subarray(start, cut === undefined ? undefined : start + cut)
    sent += body.length
    response.write(body, () => (cut === undefined ? response.end() : response.destroy()))
  }
  const server = createServer(answer).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const web: WebFolder = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked: [],
    sentBytes: () => sent,
    cutAfter: (bytes, times = 1) => void cuts.push(...Array.from({ length: times }, () => bytes)),
    ignoresRanges: false,
    status: undefined,
    onRequest: () => {},
    async stop() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
  t.teardown(() => web.stop())
  return web
}
