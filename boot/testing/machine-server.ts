// The server's side of docs/ports-and-endpoints.md "For machines", out of one folder: for the tests of boot/ only.
//
// node machine-server.ts FOLDER ADDRESS PORT KEYS. Writes FOLDER/port when it listens. KEYS gets a CA when it has none.
// In FOLDER, beside what identity-desk.ts says:
//   images/…, bundles/…   are served as they are (Range, HEAD, ?from=<bytes>)
//   disk-plan             what POST …/disks answers; not there: 404
//   target                what GET …/target answers; its second line is `bundle <digest>`. Not there: 204 at once
//   reports               gets a line per POST: `events {json}`, `check-in {json}`, `disks {json}`, `boots {json}`
//   fetched               gets a line per file answer: path, first byte
//   next/…                (if there) takes the place of the files of these names after the next file answer
//   cut                   (if there) a number: the next file answer breaks off after so many bytes, and cut goes away,
//                         unless `always` follows
//   refuse                (if there) reports are answered with 409; with a name in it only those (`check-in`)
//   deaf                  (if there) `<number> <endpoint>`: so many POSTs there are left without an answer

import {
  appendFileSync,
  createReadStream,
  existsSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'

import type { TestDesk } from './identity-desk.ts'
import { layNext } from './lay-next.ts'

const [folder = '.', address = '127.0.0.1', port = '0', keys = folder] = process.argv.slice(2)

function takeCut(): number {
  if (!existsSync(`${folder}/cut`)) return Number.POSITIVE_INFINITY
  const [bytes = '', always] = readFileSync(`${folder}/cut`, 'utf8').trim().split(' ')
  if (always === undefined) rmSync(`${folder}/cut`)
  return Number(bytes)
}

function sendFile(request: IncomingMessage, response: ServerResponse, file: string): void {
  if (!existsSync(file)) {
    response.writeHead(404).end()
    return
  }
  const size = statSync(file).size
  const url = new URL(request.url ?? '/', 'http://server')
  const from = url.searchParams.get('from')
  const start = Number(from ?? /^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0)
  appendFileSync(`${folder}/fetched`, `${url.pathname} ${start}\n`)
  if (start > 0 && start >= size) {
    response.writeHead(416).end()
    return
  }
  const isPart = from === null && start > 0
  const range = isPart ? { 'Content-Range': `bytes ${start}-${size - 1}/${size}` } : {}
  response.writeHead(isPart ? 206 : 200, { 'Content-Length': size - start, ...range })
  const cut = takeCut()
  if (cut === 0) {
    response.destroy()
    return
  }
  const end = Math.min(size - 1, start + cut - 1)
  const stream = createReadStream(file, { start, end })
  stream.once('open', () => layNext(folder))
  stream.pipe(response, { end: end === size - 1 })
  if (end < size - 1) stream.on('close', () => setImmediate(() => response.destroy()))
}

async function takeReport(
  request: IncomingMessage,
  response: ServerResponse,
  endpoint: string,
): Promise<void> {
  let body = ''
  for await (const chunk of request.setEncoding('utf8')) body += chunk
  if (isDeafFor(endpoint)) {
    response.destroy()
    return
  }
  // A body that is no JSON must show in the tests: 400 would be taken for a refusal.
  appendFileSync(`${folder}/reports`, `${endpoint} ${JSON.stringify(JSON.parse(body))}\n`)
  const refused = readIfThere('refuse')?.trim()
  if (refused === '' || refused === endpoint) response.writeHead(409).end()
  else answerReport(response, endpoint)
}

function answerReport(response: ServerResponse, endpoint: string): void {
  const text =
    endpoint === 'boots' ? 'boot from-disk-1\n' : endpoint === 'disks' ? readIfThere('disk-plan') : ''
  if (text === undefined) response.writeHead(404).end()
  else if (text === '') response.writeHead(204).end()
  else response.writeHead(200, { 'Content-Type': 'text/plain' }).end(text)
}

function isDeafFor(endpoint: string): boolean {
  const [times = '0', where] = readIfThere('deaf')?.trim().split(' ') ?? []
  if (where !== endpoint || Number(times) === 0) return false
  writeFileSync(`${folder}/deaf`, `${Number(times) - 1} ${where}`)
  return true
}

function readIfThere(name: string): string | undefined {
  return existsSync(`${folder}/${name}`) ? readFileSync(`${folder}/${name}`, 'utf8') : undefined
}

async function sendTarget(response: ServerResponse, query: URLSearchParams): Promise<void> {
  if (!existsSync(`${folder}/target`)) {
    response.writeHead(204).end()
    return
  }
  const untilMs = Date.now() + Number(query.get('wait') ?? 0) * 1000
  const read = () => readFileSync(`${folder}/target`, 'utf8')
  while (read().includes(`bundle ${query.get('bundle')}\n`) && Date.now() < untilMs) await pause(20)
  response.writeHead(200, { 'Content-Type': 'text/plain' }).end(read())
}

let desk: Promise<TestDesk> | undefined

/** Read when it is asked for: most tests have no use for it. */
async function proveIdentity(request: IncomingMessage, response: ServerResponse, url: URL): Promise<void> {
  desk ??= import('./identity-desk.ts').then(({ openTestDesk }) => openTestDesk(folder, keys))
  if (!(await desk).handle(request, response, url)) response.writeHead(404).end()
}

const server = createServer((request, response) => {
  const url = new URL(request.url ?? '/', 'http://server')
  const endpoint = /^\/v1\/machines\/[0-9a-f-]{17}\/(events|check-in|disks|boots|target)$/.exec(
    url.pathname,
  )?.[1]
  if (endpoint === 'target') void sendTarget(response, url.searchParams)
  else if (endpoint !== undefined) void takeReport(request, response, endpoint)
  else if (/^\/(?:images|bundles)\/[A-Za-z0-9./-]+$/.test(url.pathname)) {
    sendFile(request, response, `${folder}${url.pathname}`)
  } else void proveIdentity(request, response, url)
})
server.listen(Number(port), address, () => {
  writeFileSync(`${folder}/port`, String((server.address() as AddressInfo).port))
})
