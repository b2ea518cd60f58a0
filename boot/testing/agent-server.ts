// The server's side of docs/ports-and-endpoints.md "For machines" as the node agent needs it, out of one folder: for the
// tests of boot/node only.
//
// node agent-server.ts FOLDER ADDRESS PORT TLS_PORT CA_FOLDER. Writes FOLDER/tls-port, /ca (the fingerprint) and, when it listens,
// /port. What is a machine's own is for clients with a certificate of the CA, over TLS; others get 403. In FOLDER:
//   images/…, bundles/…   are served as they are, whole or one range of them
//   target                the lines GET …/target answers, but for `tag`, which is made of them. Not there: 204 at once
//   boots                 the id that POST …/boots answers. Not there: 404
//   reports               gets a line per POST: `<endpoint> {json}`
//   asked                 gets a line per GET …/target: its query
//   fetched               gets a line per file answer: path, first byte, bytes
//   refuse                (if there) the status of check-ins, for the boots it names: `404 boot-1`, or for all: `409`
//   whole                 (if there) ranges are answered with all of the file
//   next/…                (if there) takes the place of the files of these names after the next file answer
//   secrets.tar           what GET …/secrets answers
//   forgotten             (if there) no certificate is known
//   time                  (if there) what GET /v1/time answers
//   grant-refused         (if there) POST …/grant answers 409 with this message
//   grant-wait            (if there) it answers 202 with this reason; goes when `wait` is over, or the file does
//   grant.tar             (if there) what it answers else; not there: 204
//   node-refused          (if there) the status of POST …/node
//   etcd-snapshot         what GET …/etcd-snapshot answers
//   snapshot              gets what PUT …/etcd-snapshot brought, when its digest is right; `snapshot-refused`: 409 with this message
//   paths                 gets a line per request of a machine: path, the name in its certificate
//   and what identity-desk.ts needs
//   cut                   (if there) file answers break off after so many bytes, that often: `1000 2`

import { createHash } from 'node:crypto'
import { appendFileSync, existsSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo, Server } from 'node:net'
import { buffer } from 'node:stream/consumers'
import { setTimeout as pause } from 'node:timers/promises'
import { TLSSocket } from 'node:tls'

import { makeServerCertificate } from '#certs/server-certificate.ts'

import { openTestDesk } from './identity-desk.ts'
import { layNext } from './lay-next.ts'

const [folder = '.', address = '127.0.0.1', port = '0', tlsPort = '0', caFolder = '.'] = process.argv.slice(2)
const MACHINE_PATH =
  /^\/v1\/machines\/[0-9a-f-]{17}\/(events|check-in|boots|target|secrets|grant|node|etcd-snapshot)$/

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
  { endpoint, query }: { readonly endpoint: string; readonly query: URLSearchParams },
): Promise<void> {
  let text = ''
  for await (const chunk of request.setEncoding('utf8')) text += chunk
  // A body that is no JSON, or too long, must show in the tests.
  const body = JSON.parse(text)
  if (text.length > 16384) throw new Error(`a body of ${text.length} bytes`)
  appendFileSync(`${folder}/reports`, `${endpoint} ${JSON.stringify(body)}\n`)
  if (endpoint === 'grant') {
    await sendGrant(response, Number(query.get('wait') ?? 0))
    return
  }
  if (endpoint === 'node') {
    response.writeHead(Number(find('node-refused') ?? 204)).end()
    return
  }
  const [status = '', ...boots] = endpoint === 'check-in' ? (find('refuse')?.trim().split(' ') ?? []) : []
  const id = find('boots')?.trim()
  if (status !== '' && (boots.length === 0 || boots.includes(body.boot)))
    response.writeHead(Number(status)).end()
  else if (endpoint !== 'boots') response.writeHead(204).end()
  else if (id === undefined) response.writeHead(404).end()
  else response.writeHead(200, { 'Content-Type': 'text/plain' }).end(`boot ${id}\n`)
}

async function sendGrant(response: ServerResponse, waitSeconds: number): Promise<void> {
  const untilMs = Date.now() + waitSeconds * 1000
  while (find('grant-wait') !== undefined && Date.now() < untilMs && !response.destroyed) await pause(20)
  const [refused, wait] = [find('grant-refused'), find('grant-wait')]
  if (refused !== undefined) refuseWith(response, refused.trim())
  else if (wait !== undefined) response.writeHead(202, { 'Content-Type': 'text/plain' }).end(`wait ${wait}`)
  else if (!existsSync(`${folder}/grant.tar`)) response.writeHead(204).end()
  else {
    response.writeHead(200, { 'Content-Type': 'application/x-tar' }).end(readFileSync(`${folder}/grant.tar`))
  }
}

async function answerSnapshot(request: IncomingMessage, response: ServerResponse): Promise<void> {
  if (request.method !== 'PUT') {
    sendFile(request, response, '/etcd-snapshot')
    return
  }
  const bytes = await buffer(request)
  const digest = createHash('sha256').update(bytes).digest('base64')
  const refused =
    request.headers['digest'] === `sha-256=${digest}` ? find('snapshot-refused') : 'its digest is another one'
  if (refused !== undefined) {
    refuseWith(response, refused.trim())
    return
  }
  writeFileSync(`${folder}/snapshot`, bytes)
  response.writeHead(204).end()
}

function refuseWith(response: ServerResponse, message: string): void {
  response
    .writeHead(409, { 'Content-Type': 'application/json' })
    .end(JSON.stringify({ error: { code: 'conflict', message } }))
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

/** The name in the client's certificate, when the server knows it. */
function clientName({ socket }: IncomingMessage): string | undefined {
  return socket instanceof TLSSocket && socket.authorized && !existsSync(`${folder}/forgotten`)
    ? String(socket.getPeerCertificate().subject.CN)
    : undefined
}

function refuse(response: ServerResponse): void {
  const error = { code: 'identity-needed', message: 'Cannot tell who you are' }
  response.writeHead(403, { 'Content-Type': 'application/json' }).end(JSON.stringify({ error }))
}

const desk = await openTestDesk(folder, caFolder)
const certificate = { hosts: [], addresses: [address] }
const { key, chain } = await makeServerCertificate(desk.ca, certificate, Date.now())

const listener: RequestListener = (request, response) => {
  const url = new URL(request.url ?? '/', 'http://server')
  if (desk.handle(request, response, url)) return
  const endpoint = MACHINE_PATH.exec(url.pathname)?.[1]
  if (endpoint !== undefined) {
    const name = clientName(request)
    appendFileSync(`${folder}/paths`, `${url.pathname} ${name ?? '-'}\n`)
    if (name === undefined && endpoint !== 'events') refuse(response)
    else if (endpoint === 'target') void sendTarget(response, url.searchParams)
    else if (endpoint === 'secrets') sendFile(request, response, '/secrets.tar')
    else if (endpoint === 'etcd-snapshot') void answerSnapshot(request, response)
    else void takeReport(request, response, { endpoint, query: url.searchParams })
  } else if (url.pathname === '/v1/time') {
    response.end(find('time') ?? `${Math.floor(Date.now() / 1000)}\n`)
  } else if (/^\/(?:images|bundles)\/[A-Za-z0-9./-]+$/.test(url.pathname)) {
    sendFile(request, response, url.pathname)
  } else response.writeHead(404).end()
}

async function listen(server: Server, wanted: string): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<void>()
  server.listen(Number(wanted), address, resolve)
  await promise
  return String((server.address() as AddressInfo).port)
}

const tls = { key, cert: chain, ca: desk.ca.pem, requestCert: true, rejectUnauthorized: false }
writeFileSync(`${folder}/tls-port`, await listen(createTlsServer(tls, listener), tlsPort))
writeFileSync(`${folder}/ca`, desk.ca.fingerprint)
writeFileSync(`${folder}/port`, await listen(createServer(listener), port))
