// The listener with real clients: curl, atftp, tftp-hpa, busybox and the tftp2 package, over good links and bad ones.

import { execFile } from 'node:child_process'
import { createSocket, type Socket } from 'node:dgram'
import { on, once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

import test, { type ExecutionContext } from 'ava'
import tftp2 from 'tftp2'

import { systemClock } from '#lib/clock.ts'
import { parseIpv4 } from '#lib/ipv4.ts'
import { silentLog } from '#lib/log.ts'
import type { Image } from '#machine/ports.ts'
import { openUdp } from '#sockets/udp.ts'
import { openLossyLink } from '#testing/lossy-udp.ts'
import { decodeTftp, encodeTftp, type TftpPacket } from '#wire/tftp.ts'

import { autoexecRoute, firstRoute, loaderRoute } from './routes.ts'
import { createTftpService, type TftpService, type TftpServiceOptions } from './service.ts'

const LOOPBACK = parseIpv4('127.0.0.1')

/** Bytes that no two blocks have in common, whatever the block size. */
function content(sizeBytes: number): Buffer {
  const words = Buffer.alloc(Math.ceil(sizeBytes / 4) * 4)
  for (let at = 0; at < words.length; at += 4) words.writeUInt32BE((at * 2_654_435_761) >>> 0, at)
  return words.subarray(0, sizeBytes)
}

const FILES: Readonly<Record<string, Uint8Array>> = {
  'snponly.efi': content(284_672),
  'empty.bin': content(0),
  'whole-blocks.bin': content(512 * 7),
  'lossy.bin': content(80_000),
  'many-blocks.bin': content(8 * 70_000),
  'megabyte.bin': content(1 << 20),
}

const run = promisify(execFile)

async function serve(t: ExecutionContext, overrides: Partial<TftpServiceOptions> = {}): Promise<TftpService> {
  const service = createTftpService({
    port: 0,
    address: LOOPBACK,
    lookup: async (name) => (Object.hasOwn(FILES, name) ? FILES[name] : undefined),
    openUdp,
    clock: systemClock,
    log: silentLog,
    ...overrides,
  })
  await service.start()
  t.teardown(() => service.stop())
  return service
}

async function scratch(t: ExecutionContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'kit-tftp-'))
  t.teardown(() => rm(folder, { recursive: true }))
  return folder
}

async function isWhole(t: ExecutionContext, path: string, name: string): Promise<void> {
  const received = await readFile(path)
  // Not deepEqual, which takes a second for a megabyte.
  t.true(received.equals(FILES[name] ?? Buffer.alloc(0)), `${name}: ${received.length} bytes received`)
}

type Client = (port: number, name: string, into: string) => Promise<unknown>

const curl =
  (blockBytes: number): Client =>
  (port, name, into) =>
    run('curl', ['-sf', '--tftp-blksize', `${blockBytes}`, '-o', into, `tftp://127.0.0.1:${port}/${name}`])

const atftp =
  (...options: readonly string[]): Client =>
  (port, name, into) => {
    const words = options.flatMap((option) => ['--option', option])
    return run('atftp', [
      ...words,
      '--get',
      '--remote-file',
      name,
      '--local-file',
      into,
      '127.0.0.1',
      `${port}`,
    ])
  }

const tftpHpa: Client = (port, name, into) =>
  run('tftp', ['-m', 'binary', '127.0.0.1', `${port}`, '-c', 'get', name, into])

const tftp2Client: Client = async (port, name, into) => {
  const client = tftp2('127.0.0.1', port)
  const chunks: Uint8Array[] = []
  await client.read(
    name,
    (chunk) => chunks.push(chunk),
    () => {},
  )
  client.close()
  await writeFile(into, Buffer.concat(chunks))
}

const clients: readonly (readonly [title: string, client: Client])[] = [
  ['curl', curl(1024)],
  ['curl with blocks of 512', curl(512)],
  ['atftp', atftp('blksize 1428', 'tsize 0')],
  ['atftp with windows of 4', atftp('blksize 1428', 'windowsize 4')],
  ['atftp with windows of 64 and a timeout', atftp('blksize 1468', 'windowsize 64', 'timeout 2')],
  ['tftp-hpa', tftpHpa],
  ['the tftp2 package', tftp2Client],
  [
    'busybox',
    (port, name, into) =>
      run('busybox', ['tftp', '-g', '-r', name, '-l', into, '-b', '1400', '127.0.0.1', `${port}`]),
  ],
]

for (const [title, client] of clients) {
  test.serial(`the TFTP service sends whole files when asked by ${title}`, async (t) => {
    const sent: unknown[] = []
    const service = await serve(t, { onSent: (...what) => sent.push(what) })
    const into = join(await scratch(t), 'file')
    // curl 7.88 rejects an OACK that says that the file is empty ("invalid tsize").
    const names = ['snponly.efi', 'whole-blocks.bin', ...(title.startsWith('curl') ? [] : ['empty.bin'])]
    for (const name of names) {
      await client(service.port(), name, into)
      await isWhole(t, into, name)
    }
    await service.stop()
    t.deepEqual(
      sent,
      names.map((name) => [LOOPBACK, name, FILES[name]?.length]),
    )
  })
}

test.serial('the TFTP service sends to 32 clients at once, each from a port of its own', async (t) => {
  const service = await serve(t, { limits: { maxTransfersPerClient: 32 } })
  const folder = await scratch(t)
  const paths = Array.from({ length: 32 }, (_, index) => join(folder, `file-${index}`))
  const fetch = atftp('blksize 1468', 'windowsize 8')
  await Promise.all(paths.map((into) => fetch(service.port(), 'megabyte.bin', into)))
  for (const path of paths) await isWhole(t, path, 'megabyte.bin')
})

test.serial('the TFTP service sends everything over its one port when singlePort is set', async (t) => {
  const service = await serve(t, { singlePort: true })
  const folder = await scratch(t)
  const fetchers = [curl(1024), atftp('blksize 1428', 'windowsize 4'), tftp2Client]
  const paths = fetchers.map((_, index) => join(folder, `file-${index}`))
  await Promise.all(fetchers.map((fetch, index) => fetch(service.port(), 'snponly.efi', paths[index] ?? '')))
  for (const path of paths) await isWhole(t, path, 'snponly.efi')
})

const lossy: readonly (readonly [title: string, client: Client, loseEvery: number])[] = [
  // Not curl: it asks for a retransmission timeout of 6 s, and gets it.
  ['every 17th packet and tftp-hpa', tftpHpa, 17],
  ['every 5th packet and atftp', atftp('blksize 1428'), 5],
  ['every 9th packet and windows of 4', atftp('blksize 1428', 'windowsize 4'), 9],
  ['every 19th packet and windows of 16', atftp('blksize 1428', 'windowsize 16'), 19],
]

/** A loss that only the timer can mend costs this. Not less: atftp takes a second OACK, sent too soon, for the end. */
const FAST_RETRIES = { firstDelayMs: 150, longestDelayMs: 150, tries: 50 }

for (const [title, client, loseEvery] of lossy) {
  test.serial(`the TFTP service sends whole files over a link that loses ${title}`, async (t) => {
    const service = await serve(t, { retryPolicy: FAST_RETRIES })
    const link = await openLossyLink(service.port(), loseEvery)
    t.teardown(() => link.close())
    const into = join(await scratch(t), 'file')
    await client(link.port, 'lossy.bin', into)
    await isWhole(t, into, 'lossy.bin')
    t.true(link.lost() >= 3)
  })
}

test.serial('the TFTP service goes on when block numbers start again from 0', async (t) => {
  const service = await serve(t)
  const into = join(await scratch(t), 'file')
  await atftp('blksize 8', 'windowsize 64')(service.port(), 'many-blocks.bin', into)
  await isWhole(t, into, 'many-blocks.bin')
})

/** A client that says exactly what it is told to. */
class RawClient {
  readonly #socket: Socket
  readonly #messages: NodeJS.AsyncIterator<unknown[]>

  private constructor(socket: Socket) {
    this.#socket = socket
    this.#messages = on(socket, 'message')
  }

  static async open(t: ExecutionContext): Promise<RawClient> {
    const socket = createSocket('udp4')
    const listening = once(socket, 'listening')
    socket.bind(0, '127.0.0.1')
    await listening
    t.teardown(() => socket.close())
    return new RawClient(socket)
  }

  send(packet: TftpPacket | Uint8Array, port: number): void {
    this.#socket.send(packet instanceof Uint8Array ? packet : encodeTftp(packet), port, '127.0.0.1')
  }

  async next(): Promise<{ packet: TftpPacket; port: number }> {
    const { value } = await this.#messages.next()
    const [bytes, from] = value as [Buffer, { port: number }]
    return { packet: decodeTftp(bytes), port: from.port }
  }
}

const read = (name: string, options: Readonly<Record<string, string>> = {}, mode = 'octet'): TftpPacket => ({
  kind: 'read',
  name,
  mode,
  options: new Map(Object.entries(options)),
})

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
  const service = await serve(t)
  const client = await RawClient.open(t)
  for (const [what, request, code, message] of refusals) {
    client.send(request, service.port())
    t.deepEqual(await client.next(), { packet: { kind: 'error', code, message }, port: service.port() }, what)
  }
})

test.serial('the TFTP service accepts names as ROMs write them', async (t) => {
  const service = await serve(t)
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
  const service = await serve(t, { log })
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
  const service = await serve(t)
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
  const service = await serve(t, {
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

test.serial('the TFTP service leaves requests beyond its limits unanswered', async (t) => {
  const service = await serve(t, { limits: { maxTransfersPerClient: 1 } })
  const [client, other] = [await RawClient.open(t), await RawClient.open(t)]
  client.send(read('snponly.efi'), service.port())
  const { port } = await client.next()
  other.send(read('snponly.efi'), service.port())
  other.send(read('nobody.efi', {}, 'netascii'), service.port()) // refused before limits count: marks the place
  t.like((await other.next()).packet, { kind: 'error', code: 0 })
  client.send({ kind: 'error', code: 0, message: 'enough' }, port)
})

test.serial('the TFTP service tells its clients when it stops', async (t) => {
  const service = await serve(t, { retryPolicy: { firstDelayMs: 60_000, longestDelayMs: 60_000, tries: 1 } })
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
    const service = await serve(t, {
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

test.serial('loaderRoute() reads a loader once and again when the image changes', async (t) => {
  const file = join(await scratch(t), 'snponly.efi')
  const image = (sha256: string): Image => ({
    version: '1',
    arch: 'amd64',
    files: new Map([['ipxe/snponly.efi', { name: 'ipxe/snponly.efi', sizeBytes: 3, sha256, file }]]),
  })
  let current: Image | undefined
  const route = loaderRoute({ current: () => current })
  t.is(await route('snponly.efi', LOOPBACK), undefined, 'no image')
  current = image('aa')
  await t.throwsAsync(
    route('snponly.efi', LOOPBACK),
    { code: 'ENOENT' },
    'a file that is missing is an error',
  )
  await writeFile(file, 'one')
  const first = await route('snponly.efi', LOOPBACK)
  t.is(String(first), 'one')
  await writeFile(file, 'two')
  t.is(await route('snponly.efi', LOOPBACK), first, 'shared by all')
  current = image('bb')
  t.is(String(await route('snponly.efi', LOOPBACK)), 'two')
  for (const name of ['ipxe/snponly.efi', 'undionly.kpxe', 'constructor', '../snponly.efi']) {
    t.is(await route(name, LOOPBACK), undefined, name)
  }
})

test.serial('firstRoute() asks in order and autoexecRoute() always knows its one name', async (t) => {
  const lookup = firstRoute([autoexecRoute(() => '#!ipxe\n'), async (name) => Buffer.from(`other ${name}`)])
  t.is(String(await lookup('autoexec.ipxe', LOOPBACK)), '#!ipxe\n')
  t.is(String(await lookup('else', LOOPBACK)), 'other else')
})
