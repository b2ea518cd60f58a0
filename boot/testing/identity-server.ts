// `node identity-server.ts FOLDER CA_FOLDER`: the identity desk over plain HTTP and over TLS, for the tests of boot/ only. In
// FOLDER it writes `port`, `tls-port` and `ca` (the fingerprint) when it listens, and a line per other request over TLS into
// `tls`: path, and the name in the client's certificate, `-` without one that the CA signed.

import { appendFileSync, writeFileSync } from 'node:fs'
import { createServer, type RequestListener } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo, Server } from 'node:net'
import { TLSSocket } from 'node:tls'

import { makeServerCertificate } from '#certs/server-certificate.ts'

import { openTestDesk } from './identity-desk.ts'

const [folder = '.', caFolder = '.'] = process.argv.slice(2)
const desk = await openTestDesk(folder, caFolder)
const { key, chain } = await makeServerCertificate(
  desk.ca,
  { hosts: [], addresses: ['127.0.0.1'] },
  Date.now(),
)

const listener: RequestListener = (request, response) => {
  const url = new URL(request.url ?? '/', 'http://server')
  if (desk.handle(request, response, url)) return
  const { socket } = request
  const isProved = socket instanceof TLSSocket && socket.authorized
  const name = isProved ? socket.getPeerCertificate().subject.CN : '-'
  if (socket instanceof TLSSocket) appendFileSync(`${folder}/tls`, `${url.pathname} ${name}\n`)
  response.end(`${name}\n`)
}

async function listen(server: Server): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<void>()
  server.listen(0, '127.0.0.1', resolve)
  await promise
  return String((server.address() as AddressInfo).port)
}

const tls = createTlsServer(
  { key, cert: chain, ca: desk.ca.pem, requestCert: true, rejectUnauthorized: false },
  listener,
)
writeFileSync(`${folder}/tls-port`, await listen(tls))
writeFileSync(`${folder}/ca`, desk.ca.fingerprint)
writeFileSync(`${folder}/port`, await listen(createServer(listener)))
