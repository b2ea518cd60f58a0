// Says again, connection by connection, what a capture has of plain HTTP: replay-wire.ts <pcap> <server> <port> <own address>.
// Prints how many connections and requests there were, and the statuses of the answers, as JSON. Runs inside the LAN of a test.

import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { argv, stdout } from 'node:process'

import { runCommand } from '#lib/process.ts'

import { readClientStreams } from './wire-requests.ts'

export interface Replayed {
  readonly connections: number
  readonly requests: number
  /** Of the first answer of each connection that is one, and of those that follow within what is read. */
  readonly statuses: Readonly<Record<string, number>>
}

/** Whole images say nothing that their beginnings do not. */
const READ_MAX_BYTES = 1 << 20
const REQUEST_LINE = /^(?:GET|HEAD|POST|PUT|DELETE) \S+ HTTP\/1\.[01]\r$/gm
const STATUS_LINE = /^HTTP\/1\.[01] (\d{3}) /gm

const [, , file = '', host = '', port = '', localAddress = ''] = argv

async function say(bytes: Buffer): Promise<string> {
  const socket = connect({ host, port: Number(port), localAddress })
  const chunks: Buffer[] = []
  let read = 0
  socket.on('data', (chunk: Buffer) => {
    chunks.push(chunk)
    read += chunk.length
    if (read > READ_MAX_BYTES) socket.destroy()
  })
  socket.end(bytes)
  // A connection that is cut, by either side, has said what it had to.
  socket.on('error', () => {})
  await once(socket, 'close')
  return Buffer.concat(chunks).toString('latin1')
}

const requestsFile = `${file}.requests`
const toServer = `tcp dst port ${port} and dst host ${host} and not src host ${localAddress}`
// It fails at the end of a capture that is still being written, and has written what came before.
await runCommand('tcpdump', ['-r', file, '-Z', 'root', '-w', requestsFile, toServer])
const streams = readClientStreams(await readFile(requestsFile))
const statuses: Record<string, number> = {}
let requests = 0
for (const stream of streams) {
  requests += stream.toString('latin1').match(REQUEST_LINE)?.length ?? 0
  for (const [, status = ''] of (await say(stream)).matchAll(STATUS_LINE)) {
    statuses[status] = (statuses[status] ?? 0) + 1
  }
}
const replayed: Replayed = { connections: streams.length, requests, statuses }
stdout.write(`${JSON.stringify(replayed)}\n`)
