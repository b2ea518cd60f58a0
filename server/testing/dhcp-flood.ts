// Floods a DHCP server with damaged captures, and after each batch asks it a proper question that it must answer.

import { createSocket } from 'node:dgram'
import { once } from 'node:events'

import { mutations, readDhcpRequests } from './captured-dhcp.ts'

/** The one argument, as JSON. */
export interface DhcpFloodArguments {
  readonly targetIp: string
  /** Taken in turn. */
  readonly ports: readonly number[]
  readonly packets: number
  /** A packet that is always answered, hex; each gets an xid of its own. */
  readonly question: string
}

/** Fits into the receive buffer, so that the kernel drops nothing, the question least of all. */
const BATCH = 250
const LAST_MAC_BYTE = 28 + 5 // chaddr (RFC 2131 §2)
const PATIENCE_MS = 10_000

const asked: DhcpFloodArguments = JSON.parse(process.argv[2] ?? '')
const question = Buffer.from(asked.question, 'hex')
const damaged = mutations(
  (await readDhcpRequests()).map(({ payload }) => payload),
  4011,
)

const socket = createSocket('udp4')
socket.bind(68)
await once(socket, 'listening')
socket.setBroadcast(true)

for (let sent = 0; sent < asked.packets; sent += BATCH) {
  const port = asked.ports[(sent / BATCH) % asked.ports.length] ?? 67
  await Promise.all(Array.from({ length: BATCH }, (_, n) => send(asMachine(n, damaged.next().value), port)))
  await ask(sent)
}
process.stdout.write(`answered after ${asked.packets}\n`)
socket.close()

/** The captures come from one machine, of which a server may take only so much at a time. */
function asMachine(number: number, packet: Uint8Array): Uint8Array {
  if (packet.length > LAST_MAC_BYTE) packet[LAST_MAC_BYTE] = number
  return packet
}

function send(bytes: Uint8Array, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.send(bytes, port, asked.targetIp, (error) => (error === null ? resolve() : reject(error)))
  })
}

/** Resolves with the answer to one proper question; the process fails when there is none. */
async function ask(xid: number): Promise<void> {
  question.writeUInt32BE(xid, 4)
  const patience = setTimeout(() => {
    process.stderr.write(`no answer after ${xid} packets\n`)
    process.exit(1)
  }, PATIENCE_MS)
  const answered = new Promise<void>((resolve) => {
    const hear = (bytes: Buffer) => {
      if (bytes.length < 8 || bytes.readUInt32BE(4) !== xid || bytes[0] !== 2) return
      socket.off('message', hear)
      resolve()
    }
    socket.on('message', hear)
  })
  await send(question, 67)
  await answered
  clearTimeout(patience)
}
