// Clients that open thousands of connections, and those beside them that must not notice.

import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { createServer, get } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { join } from 'node:path'

import test, { type ExecutionContext } from 'ava'

import { parseIpv4 } from '#lib/ipv4.ts'
import { curl, startHttp } from '#testing/http-fixture.ts'
import { TurnedClock } from '#testing/turned-clock.ts'

import { ChunkPool } from './chunk-pool.ts'
import { ConnectionLimit, type ConnectionLimits } from './connection-limit.ts'
import { sendFile } from './file-sender.ts'
import { WaitSeats } from './wait-seats.ts'

const PLENTY = { burst: 1_000_000, perSecond: 1_000_000 }
const LIMITS: ConnectionLimits = {
  total: 10,
  keptForKnown: 4,
  perAddress: 3,
  newPerAddress: PLENTY,
  newOfStrangers: PLENTY,
}
const KNOWN = parseIpv4('10.0.0.200')

function makeLimit(limits: Partial<ConnectionLimits> = {}) {
  const clock = new TurnedClock()
  const limit = new ConnectionLimit({
    limits: { ...LIMITS, ...limits },
    isKnownAddress: (ip) => ip === KNOWN,
    clock,
  })
  /** Undefined when it was refused; else ends the connection. */
  const open = (address: string): (() => void) | undefined => {
    let close = () => {}
    const once = (_event: string, listener: () => void) => {
      close = listener
    }
    const connection = { remoteAddress: address, once } as unknown as Socket
    return limit.admit(connection) ? () => close() : undefined
  }
  const opened = (address: string, times: number) =>
    Array.from({ length: times }, () => open(address)).filter((close) => close !== undefined)
  return { clock, open, opened }
}

test('ConnectionLimit.admit() gives each address its number, and one more when one is closed', (t) => {
  const { open, opened } = makeLimit()
  const [first, ...others] = opened('10.0.0.1', 9)
  t.is(others.length, 2)
  t.is(opened('::ffff:10.0.0.1', 1).length, 0, 'the same address in other clothes')
  t.is(opened('10.0.0.2', 1).length, 1)
  first?.()
  t.truthy(open('10.0.0.1'))
  t.falsy(open('10.0.0.1'))
})

test('ConnectionLimit.admit() leaves room for known machines when many addresses take all', (t) => {
  const { opened } = makeLimit()
  const taken = Array.from({ length: 20 }, (_, n) => opened(`10.0.0.${n}`, 3).length)
  t.is(
    taken.reduce((sum, each) => sum + each),
    6,
  )
  t.is(opened(KNOWN, 5).length, 3)
})

test('ConnectionLimit.admit() slows down an address that connects anew without end, and strangers together', (t) => {
  const newPerAddress = { burst: 4, perSecond: 2 }
  const { clock, open } = makeLimit({ newPerAddress, newOfStrangers: { burst: 6, perSecond: 3 } })
  const opens = (address: string, times: number) => {
    let count = 0
    for (let n = 0; n < times; n++) {
      const close = open(address)
      if (close !== undefined) count++
      close?.()
    }
    return count
  }
  t.is(opens('10.0.0.1', 50), 4)
  t.is(opens('10.0.0.2', 50), 2, 'what is left for strangers')
  t.is(opens(KNOWN, 50), 4)
  clock.turn(1000)
  t.is(opens('10.0.0.1', 50), 2)
  t.is(opens('10.0.0.2', 50), 1)
})

test('ConnectionLimit.admit() refuses a connection that has gone again', (t) => {
  const { opened } = makeLimit()
  t.is(opened(undefined as unknown as string, 1).length, 0)
})

/** Connects from `from`, and says nothing. */
async function idle(t: ExecutionContext, port: number, { from, count }: { from: string; count: number }) {
  let open = 0
  let wake = () => {}
  const sockets = await Promise.all(
    Array.from({ length: count }, async () => {
      const socket = connect({ port, host: '127.0.0.1', localAddress: from })
      socket.on('error', () => {})
      await once(socket, 'connect')
      open++
      socket.once('close', () => {
        open--
        wake()
      })
      socket.resume()
      return socket
    }),
  )
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
  })
  /** Resolves when no more than that many are left. */
  const downTo = async (left: number) => {
    while (open > left) {
      await new Promise<void>((resolve) => {
        wake = resolve
      })
    }
  }
  return { sockets, open: () => open, downTo }
}

for (const transport of ['plain', 'tls'] as const) {
  test(`the HTTP service cuts what one address opens beyond its number, and answers others (${transport})`, async (t) => {
    const http = await startHttp(t, { connectionsPerAddress: 16 })
    const [port, url, args] =
      transport === 'plain'
        ? [http.port, http.url, []]
        : [http.tlsPort, http.tlsUrl, ['--cacert', http.caFile]]
    const crowd = await idle(t, port, { from: '127.0.0.2', count: 40 })
    const health = (...more: string[]) => curl(...args, ...more, `${url}/healthz`)
    await crowd.downTo(16)
    t.regex(await health(), /"ok"/)
    await t.throwsAsync(health('--interface', '127.0.0.2'))
    t.is(crowd.open(), 16)
    t.regex(await curl('--unix-socket', http.socketFile, 'http://kit/healthz'), /"ok"/)
    for (const socket of crowd.sockets) socket.destroy()
    // They are gone when the server has seen it, which it has when it answers the next one it hears of.
    await health()
    t.regex(await health('--interface', '127.0.0.2'), /"ok"/)
  })
}

test('WaitSeats.take() ends the oldest wait of a machine that has too many, and forgets those that are over', (t) => {
  const seats = new WaitSeats(2)
  const ended: string[] = []
  const wait = (key: string, name: string) => seats.take(key, () => void ended.push(name))
  const [first, second] = [wait('a', 'a1'), wait('a', 'a2')]
  wait('b', 'b1')
  t.deepEqual(ended, [])
  wait('a', 'a3')
  t.deepEqual(ended, ['a1'])
  first()
  t.is(seats.size, 3)
  second()
  wait('a', 'a4')
  t.deepEqual(ended, ['a1'], 'there was room')
  t.is(seats.size, 3)
})

test('sendFile() lends no more chunks than it may to clients that do not read, and sends the others whole files', async (t) => {
  const { folder } = await startHttp(t)
  const content = randomBytes(8 << 20)
  const file = join(folder, 'large')
  writeFileSync(file, content)
  const served = { file, sizeBytes: content.length, sha256: 'a', contentType: 'application/octet-stream' }
  const pool = new ChunkPool({ chunkBytes: 512 * 1024, idleChunks: 0, lentChunks: 3 })
  const server = createServer((request, response) => {
    const url = new URL(request.url ?? '', 'http://kit')
    sendFile({ request, response, url }, served, pool).catch(() => response.destroy())
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  const { port } = server.address() as AddressInfo
  // Each from another place, so that they share nothing; the head says that a chunk is on its way.
  for (let n = 0; n < 8; n++) {
    const slow = get({ port, host: '127.0.0.1', path: `/?from=${n << 19}`, agent: false })
    slow.on('error', () => {})
    const [response] = await once(slow, 'response')
    response.pause()
  }
  t.true(pool.size <= 4, `${pool.size} chunks`)
  const [whole] = await once(get({ port, host: '127.0.0.1', path: '/', agent: false }), 'response')
  const hash = createHash('sha256')
  for await (const bytes of whole) hash.update(bytes)
  t.is(hash.digest('hex'), createHash('sha256').update(content).digest('hex'))
})
