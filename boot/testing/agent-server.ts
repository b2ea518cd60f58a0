// The server's side of docs/ports-and-endpoints.md "For machines" as the node agent needs it, out of one folder: for the
// tests of boot/node only.
//
// node agent-server.ts FOLDER ADDRESS PORT. Writes FOLDER/port when it listens. In FOLDER:
//   images/…, bundles/…   are served as they are, whole or one range of them
//   target                the lines GET …/target answers, but for `tag`, which is made of them. Not there: 204 at once
//   boots                 the id that POST …/boots answers. Not there: 404
//   reports               gets a line per POST: `<endpoint> {json}`
//   asked                 gets a line per GET …/target: its query
//   fetched               gets a line per file answer: path, first byte, bytes
//   refuse                (if there) the status of check-ins, for the boots it names: `404 boot-1`, or for all: `409`
//   whole                 (if there) ranges are answered with all of the file
//   next/…                (if there) takes the place of the files of these names after the next file answer
//   cut                   (if there) file answers break off after so many bytes, that often: `1000 2`

import { createHash } from 'node:crypto'
import { appendFileSync, existsSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'

import { layNext } from './lay-next.ts'

const [folder = '.', address = '127.0.0.1', port = '0'] = process.argv.slice(2)

function find(name: string): string | undefined {
  return existsSync(`${folder}/${name}`) ? readFileSync(`${folder}/${name}`, 'utf8') : undefined
}

function takeCut(): number {
  const [bytes = '', times = '1'] = find('cut')?.trim().split(' ') ?? ['Infinity']
  if (times === '1') rmSync(`${folder}/cut`, { force: true })
  else writeFileSync(`${folder}/cut`, `${bytes} ${Number(times) - 1}`)
  return Number(bytes)
}

function sendFile(request: IncomingMessage, response: ServerResponse, path: string): void {
  if (!existsSync(folder + path)) {
    response.writeHead(404).end()
    return
  }
  const size = statSync(folder + path).size
  const range = existsSync(`${folder}/whole`) ? null : /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '')
  const first = Number(range?.[1] ?? 0)
  const last = Math.min(size - 1, Number(range?.[2] ?? size - 1))
  if (range !== null && first >= size) {
    response.writeHead(416).end()
    return
  }
  appendFileSync(`${folder}/fetched`, `${path} ${first} ${last - first + 1}\n`)
  const part = range === null ? {} : { 'Content-Range': `bytes ${first}-${last}/${size}` }
  response.writeHead(range === null ? 200 : 206, { 'Content-Length': last - first + 1, ...part })
  const bytes = readFileSync(folder + path).subarray(first, last + 1)
  layNext(folder)
  const cut = takeCut()
  if (cut >= bytes.length) response.end(bytes)
  else response.write(bytes.subarray(0, cut), () => response.destroy())
}

async function takeReport(
  request: IncomingMessage,
  response: ServerResponse,
  endpoint: string,
): Promise<void> {
  let text = ''
  for await (const chunk of request.setEncoding('utf8')) text += chunk
  // A body that is no JSON, or too long, must show in the tests.
  const body = JSON.parse(text)
  if (text.length > 16384) throw new Error(`a body of ${text.length} bytes`)
  appendFileSync(`${folder}/reports`, `${endpoint} ${JSON.stringify(body)}\n`)
  const [status = '', ...boots] = endpoint === 'check-in' ? (find('refuse')?.trim().split(' ') ?? []) : []
  const id = find('boots')?.trim()
  if (status !== '' && (boots.length === 0 || boots.includes(body.boot)))
    response.writeHead(Number(status)).end()
  else if (endpoint !== 'boots') response.writeHead(204).end()
  else if (id === undefined) response.writeHead(404).end()
  else response.writeHead(200, { 'Content-Type': 'text/plain' }).end(`boot ${id}\n`)
}

function readTarget(): { tag: string; text: string } {
  const lines = find('target') ?? ''
  const tag = createHash('sha256').update(lines).digest('hex').slice(0, 16)
  return { tag, text: `tag ${tag}\n${lines}` }
}

async function sendTarget(response: ServerResponse, query: URLSearchParams): Promise<void> {
  appendFileSync(`${folder}/asked`, `${query}\n`)
  const untilMs = Date.now() + Number(query.get('wait') ?? 0) * 1000
  while (
    existsSync(`${folder}/target`) &&
    readTarget().tag === query.get('known') &&
    Date.now() < untilMs &&
    !response.destroyed
  ) {
    await pause(20)
  }
  if (!existsSync(`${folder}/target`)) response.writeHead(204).end()
  else response.writeHead(200, { 'Content-Type': 'text/plain' }).end(readTarget().text)
}

const server = createServer((request, response) => {
  const url = new URL(request.url ?? '/', 'http://server')
  const endpoint = /^\/v1\/machines\/[0-9a-f-]{17}\/(events|check-in|boots|target)$/.exec(url.pathname)?.[1]
  if (endpoint === 'target') void sendTarget(response, url.searchParams)
  else if (endpoint !== undefined) void takeReport(request, response, endpoint)
  else if (/^\/(?:images|bundles)\/[A-Za-z0-9./-]+$/.test(url.pathname)) {
    sendFile(request, response, url.pathname)
  } else response.writeHead(404).end()
})
server.listen(Number(port), address, () => {
  writeFileSync(`${folder}/port`, String((server.address() as AddressInfo).port))
})
