// The listener packet by packet: what it refuses, what it ignores, and what it survives.

import type { Socket } from 'node:dgram'

import test from 'ava'

import { systemClock } from '#lib/clock.ts'
import { silentLog } from '#lib/log.ts'
import { openUdp } from '#sockets/udp.ts'
import { FILES, RawClient, read, serveTftp } from '#testing/tftp-service.ts'
import { encodeTftp, type TftpPacket } from '#wire/tftp.ts'

const refusals: readonly (readonly [what: string, request: TftpPacket, code: number, message: string])[] = [
  ['a name nobody has', read('etc/passwd'), 1, 'There is no file etc/passwd here'],
  ['a name that climbs', read('../../etc/passwd'), 1, 'There is no file ../../etc/passwd here'],
  ['a name of the prototype', read('__proto__'), 1, 'There is no file __proto__ here'],
  ['netascii', read('snponly.efi', {}, 'netascii'), 0, 'Only octet (binary) mode is served, not netascii'],
  [
    'a write',
    { kind: 'write', name: 'snponly.efi', mode: 'octet', options: new Map() },
    2,
    'This server is read-only',
  ],
]

test.serial('the TFTP service says why when it refuses', async (t) => {
  const service = await serveTftp(t)
  const client = await RawClient.open(t)
  for (const [what, request, code, message] of refusals) {
    client.send(request, service.port())
    t.deepEqual(await client.next(), { packet: { kind: 'error', code, message }, port: service.port() }, what)
  }
})

test.serial('the TFTP service accepts names as ROMs write them', async (t) => {
  const service = await serveTftp(t)
  for (const name of ['/snponly.efi', '\\snponly.efi', './snponly.efi', '//snponly.efi', 'snponly.efi\xff']) {
    const client = await RawClient.open(t)
    client.send(read(name), service.port())
    t.like((await client.next()).packet, { kind: 'data', block: 1 }, name)
  }
})

test.serial('the TFTP service answers a size probe and takes its abort without a warning', async (t) => {
  const warnings: string[] = []
  const probed = Promise.withResolvers<void>()
  const log = {
    ...silentLog,
    debug: (_: unknown, message: string) => message.includes('size only') && probed.resolve(),
    warn: (_: unknown, message: string) => warnings.push(message),
  }
  const service = await serveTftp(t, { log })
  const client = await RawClient.open(t)
  client.send(read('snponly.efi', { tsize: '0', blksize: '1468', windowsize: '4' }), service.port())
  const { packet, port } = await client.next()
  const granted = new Map([
    ['blksize', '1468'],
    ['windowsize', '4'],
    ['tsize', '284672'],
  ])
  t.deepEqual(packet, { kind: 'oack', options: granted })
  t.not(port, service.port())
  client.send({ kind: 'error', code: 8, message: 'User aborted the transfer' }, port)
  await probed.promise
  t.deepEqual(warnings, [])
})

test.serial('the TFTP service turns a stranger away from a transfer and goes on with it', async (t) => {
  const service = await serveTftp(t)
  const [client, stranger] = [await RawClient.open(t), await RawClient.open(t)]
  client.send(read('whole-blocks.bin'), service.port())
  const { port } = await client.next()
  stranger.send({ kind: 'ack', block: 1 }, port)
  t.like((await stranger.next()).packet, { kind: 'error', code: 5 })
  client.send({ kind: 'ack', block: 1 }, port)
  for (;;) {
    const { packet } = await client.next()
    if (packet.kind === 'data' && packet.block === 2) break
    t.like(packet, { kind: 'data', block: 1 }) // sent again before our ACK came
  }
})

test.serial('the TFTP service begins one transfer when a request comes twice', async (t) => {
  let lookups = 0
  const service = await serveTftp(t, {
    async lookup(name) {
      lookups++
      return FILES[name]
    },
  })
  const client = await RawClient.open(t)
  client.send(read('whole-blocks.bin'), service.port())
  client.send(read('whole-blocks.bin'), service.port())
  const first = await client.next()
  const second = await client.next()
  t.is(lookups, 1)
  t.is(first.port, second.port, 'the second packet is the timer’s')
})

test.serial(
  'the TFTP service takes a request come late for no new one, until its client has been silent',
  async (t) => {
    const clock = { ms: 0, ...systemClock, monotonicMs: () => clock.ms }
    const retryPolicy = { firstDelayMs: 60_000, longestDelayMs: 60_000, tries: 1 }
    const service = await serveTftp(t, { clock, retryPolicy })
    const client = await RawClient.open(t)
    client.send(read('whole-blocks.bin'), service.port())
    const { port } = await client.next()
    client.send({ kind: 'ack', block: 1 }, port)
    t.like(await client.next(), { packet: { kind: 'data', block: 2 }, port })
    client.send(read('whole-blocks.bin'), service.port()) // had waited in a full queue
    client.send(read('nobody.efi', {}, 'netascii'), service.port()) // marks the place
    t.like((await client.next()).packet, { kind: 'error' })
    client.send({ kind: 'ack', block: 2 }, port)
    t.like(await client.next(), { packet: { kind: 'data', block: 3 }, port })
    clock.ms += 60_000
    client.send(read('whole-blocks.bin'), service.port()) // begins anew
    const again = await client.next()
    t.like(again.packet, { kind: 'data', block: 1 })
    t.not(again.port, port)
  },
)

test.serial('the TFTP service ignores what comes from port 0, where nobody can be answered', async (t) => {
  const sockets: Socket[] = []
  const service = await serveTftp(t, {
    async openUdp(options) {
      const socket = await openUdp(options)
      sockets.push(socket)
      return socket
    },
  })
  const client = await RawClient.open(t)
  client.send(read('whole-blocks.bin'), service.port())
  const { port } = await client.next()
  t.is(sockets.length, 2)
  // Only a raw socket sends such a datagram; dgram hands it in like this (seen on Node 24.21).
  const nowhere = { address: '127.0.0.1', family: 'IPv4', port: 0, size: 0 }
  for (const socket of sockets) {
    for (const packet of [read('snponly.efi'), { ...read('x'), kind: 'write' }, { kind: 'ack', block: 1 }]) {
      t.notThrows(() => socket.emit('message', encodeTftp(packet as TftpPacket), nowhere))
    }
  }
  client.send({ kind: 'ack', block: 1 }, port)
  t.like(await client.next(), { packet: { kind: 'data', block: 2 }, port })
})

test.serial('the TFTP service leaves requests beyond its limits unanswered', async (t) => {
  const service = await serveTftp(t, { limits: { maxTransfersPerClient: 1 } })
  const [client, other] = [await RawClient.open(t), await RawClient.open(t)]
  client.send(read('snponly.efi'), service.port())
  const { port } = await client.next()
  other.send(read('snponly.efi'), service.port())
  other.send(read('nobody.efi', {}, 'netascii'), service.port()) // refused before limits count: marks the place
  t.like((await other.next()).packet, { kind: 'error', code: 0 })
  client.send({ kind: 'error', code: 0, message: 'enough' }, port)
})

test.serial('the TFTP service tells its clients when it stops', async (t) => {
  const service = await serveTftp(t, {
    retryPolicy: { firstDelayMs: 60_000, longestDelayMs: 60_000, tries: 1 },
  })
  const client = await RawClient.open(t)
  client.send(read('snponly.efi'), service.port())
  const { port } = await client.next()
  await service.stop()
  t.deepEqual(await client.next(), {
    packet: { kind: 'error', code: 0, message: 'The server is stopping' },
    port,
  })
})

const floods: readonly (readonly [title: string, singlePort: boolean, batches: number])[] = [
  ['100,000 mutated packets', false, 200],
  ['20,000 mutated packets to its single port', true, 40],
]

for (const [title, singlePort, batches] of floods) {
  test.serial(`the TFTP service answers after ${title}`, async (t) => {
    const service = await serveTftp(t, {
      singlePort,
      retryPolicy: { firstDelayMs: 5, longestDelayMs: 5, tries: 1 },
    })
    const [fuzzer, prober] = [await RawClient.open(t), await RawClient.open(t)]
    const packets = mutations(singlePort ? 2 : 1)
    for (let batch = 0; batch < batches; batch++) {
      for (let sent = 0; sent < 500; sent++) fuzzer.send(packets.next().value, service.port())
      // The listener reads in order: an answer to this says that it has survived all before it.
      prober.send(read(`probe-${batch}`), service.port())
      t.like((await prober.next()).packet, {
        kind: 'error',
        message: `There is no file probe-${batch} here`,
      })
    }
  })
}

/** Endless packets that are almost right, the same ones for the same seed. */
function* mutations(seed: number): Generator<Uint8Array, never> {
  const templates = [
    read('snponly.efi', { tsize: '0', blksize: '1468', windowsize: '4' }),
    read('autoexec.ipxe', { blksize: '1432', tsize: '0' }),
    { kind: 'ack', block: 1 },
    { kind: 'error', code: 8, message: 'User aborted the transfer' },
    { kind: 'oack', options: new Map([['blksize', '512']]) },
    { kind: 'data', block: 1, bytes: Buffer.alloc(32) },
  ] as const satisfies readonly TftpPacket[]
  const images = templates.map(encodeTftp)
  let state = seed
  const below = (limit: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * limit)
  }
  for (;;) {
    const image = Buffer.from(images[below(images.length)] ?? [])
    for (let change = below(4); change > 0; change--) image[below(image.length)] = below(256)
    yield image.subarray(0, below(4) === 0 ? below(image.length + 1) : image.length)
  }
}
