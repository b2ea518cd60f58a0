// What a foreign avahi-daemon on the same cable sees of the server, from its announcement to its goodbye; and noise.

import { createSocket } from 'node:dgram'
import { on } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import test from 'ava'

import { KitError } from '#lib/errors.ts'
import { parseIpv4 } from '#lib/ipv4.ts'
import { silentLog } from '#lib/log.ts'
import { openUdp } from '#sockets/udp.ts'
import { mutations } from '#testing/captured-dhcp.ts'
import { linesOf } from '#testing/lan.ts'
import { addNeighbour, enterOwnNetwork, type Neighbour } from '#testing/own-network.ts'

import { createMdnsService, limitMessages } from './advertise.ts'

const TLS = { tlsPort: 8443, fingerprint: 'ca'.repeat(32) }

const BUS_CONFIG = (socket: string) => `<busconfig>
  <type>system</type>
  <listen>unix:path=${socket}</listen>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
`

const AVAHI_CONFIG = `[server]
host-name=watcher
use-ipv6=no
[publish]
publish-workstation=no
`

type Start = Neighbour['start']

/** A host with an avahi-daemon and a bus of its own; resolves when both answer. The address is for DBUS_SYSTEM_BUS_ADDRESS. */
async function startAvahi(start: Start, folder: string): Promise<string> {
  const socket = join(folder, 'bus')
  await writeFile(join(folder, 'bus.conf'), BUS_CONFIG(socket))
  await writeFile(join(folder, 'avahi.conf'), AVAHI_CONFIG)
  const busAddress = `unix:path=${socket}`
  const bus = start('dbus-daemon', '--nofork', '--print-address', `--config-file=${join(folder, 'bus.conf')}`)
  await linesOf(bus).next(/^unix:/)
  // A private /run, because the daemon's pid file has no setting and this machine may run one of its own.
  const daemon = [
    'avahi-daemon',
    '--no-drop-root',
    '--no-chroot',
    '--no-rlimits',
    '-f',
    join(folder, 'avahi.conf'),
  ]
  const avahi = start(
    ...(['env', `DBUS_SYSTEM_BUS_ADDRESS=${busAddress}`, 'unshare', '--mount'] as const),
    ...['sh', '-c', 'mount -t tmpfs none /run && exec "$@"', 'sh', ...daemon],
  )
  await linesOf(avahi).next(/Server startup complete/)
  return busAddress
}

test.serial('createMdnsService() is seen by avahi-browse, and seen going when it stops', async (t) => {
  await enterOwnNetwork()
  const folder = await mkdtemp(join(tmpdir(), 'kit-mdns-'))
  t.teardown(() => rm(folder, { recursive: true }))
  const watcher = await addNeighbour({ name: 'lan0', address: '10.9.0.1/24' }, '10.9.0.2/24')
  const bystander = await addNeighbour({ name: 'lan1', address: '10.8.0.1/24' }, '10.8.0.2/24')
  t.teardown(() => {
    watcher.stop()
    bystander.stop()
  })
  const startOn =
    (host: Neighbour): Start =>
    (...command) => {
      const child = host.start(...command)
      t.teardown(() => child.kill('SIGKILL'))
      return child
    }
  const busAddress = await startAvahi(startOn(watcher), folder)
  const overheard: string[] = []
  const ear = startOn(bystander)('tcpdump', '-i', 'eth0', '-n', '-l', '--immediate-mode', 'udp port 5353')
  await linesOf(ear).next(/listening on eth0/)
  ear.stdout?.on('data', (line) => overheard.push(String(line)))

  const browser = linesOf(
    startOn(watcher)('env', `DBUS_SYSTEM_BUS_ADDRESS=${busAddress}`, 'avahi-browse', '-rp', '_kateskit._tcp'),
  )
  const service = createMdnsService({
    name: `KatesKit on attic ${'é'.repeat(40)}`,
    ip: parseIpv4('10.9.0.1'),
    ...{ port: 8080, ...TLS },
    version: '1.2.3',
    id: 'a1b2c3d4-0000-4000-8000-000000000000',
    log: silentLog,
  })
  t.teardown(() => service.stop())
  await service.start()
  const resolved = await browser.next(/^=/)
  // State, interface, protocol, name, type, domain, host, address, port, TXT: `avahi-browse --parsable` escapes the name.
  const [, , , name, type, domain, host, address, port, text] = resolved.split(';')
  // 63 bytes hold 17 é's (of two bytes each) behind "KatesKit on attic ", and " (a1b2c3d4)".
  t.is(name, String.raw`KatesKit\032on\032attic\032${String.raw`\195\169`.repeat(17)}\032\040a1b2c3d4\041`)
  t.deepEqual(
    [type, domain, host, address, port],
    ['_kateskit._tcp', 'local', 'kateskit-a1b2c3d4.local', '10.9.0.1', '8080'],
  )
  for (const entry of [
    ...['"api=/api/v1"', '"version=1.2.3"', '"id=a1b2c3d4-0000-4000-8000-000000000000"'],
    ...['"https=8443"', `"ca=${TLS.fingerprint}"`],
  ])
    t.true(text?.includes(entry), entry)

  await service.stop()
  await browser.next(/^-.*KatesKit/)
  t.deepEqual(overheard, [], 'nothing is said on other interfaces')
  await service.stop()
})

const HEADER_BYTES = 12
const TYPE = { address: 1, pointer: 12 } as const

/** A name as RFC 1035 §3.1 has it. */
const encodeName = (name: string) =>
  Buffer.concat([...name.split('.'), ''].map((label) => Buffer.from([label.length, ...Buffer.from(label)])))

/** One question of class IN (RFC 6762 §18, RFC 1035 §4.1.2). */
const question = (name: string, type: number) =>
  Buffer.concat([
    Uint8Array.of(0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0),
    encodeName(name),
    Uint8Array.of(0, type, 0, 1),
  ])

test.serial('createMdnsService() answers after 20,000 mutated packets', async (t) => {
  await enterOwnNetwork()
  const cable = await addNeighbour({ name: 'lan0', address: '10.9.0.1/24' })
  t.teardown(() => cable.stop())
  const ear = createSocket({ type: 'udp4', reuseAddr: true })
  const mouth = createSocket('udp4')
  t.teardown(() => {
    for (const socket of [ear, mouth]) socket.close()
  })
  await Promise.all([
    new Promise<void>((resolve) => ear.bind(5353, '224.0.0.251', resolve)),
    new Promise<void>((resolve) => mouth.bind(0, '10.9.0.1', resolve)),
  ])
  ear.addMembership('224.0.0.251', '10.9.0.1')
  mouth.setMulticastInterface('10.9.0.1')
  /** The next packet that the service sends and that satisfies; what `mouth` sends comes from another port. */
  const hear = async (wanted: (bytes: Buffer) => boolean): Promise<Buffer> => {
    for await (const [bytes, from] of on(ear, 'message', { signal: AbortSignal.timeout(30_000) })) {
      if (from.port === 5353 && wanted(bytes)) return bytes
    }
    throw new Error('unreachable: it waits or throws')
  }
  const isResponse = (bytes: Buffer) => ((bytes[2] ?? 0) & 0x80) !== 0

  const service = createMdnsService({
    ...{ name: 'KatesKit', ip: parseIpv4('10.9.0.1'), port: 8080, ...TLS, version: '1' },
    ...{ id: 'a1b2c3d4-0000-4000-8000-000000000000', log: silentLog },
    messagesPerSecond: 1_000_000,
  })
  t.teardown(() => service.stop())
  const announced = hear(isResponse)
  await service.start()
  const packets = mutations([await announced, question('_kateskit._tcp.local', TYPE.pointer)], 5353)
  const say = (bytes: Uint8Array) =>
    new Promise<void>((resolve) => mouth.send(bytes, 5353, '224.0.0.251', () => resolve()))
  const host = 'kateskit-a1b2c3d4.local'
  for (let batch = 0; batch < 200; batch++) {
    await Promise.all(Array.from({ length: 100 }, () => say(packets.next().value)))
    // Only the answer to this begins with the host, none to the packets before it.
    const answered = hear((bytes) => isResponse(bytes) && bytes.indexOf(encodeName(host)) === HEADER_BYTES)
    await say(question(host, TYPE.address))
    t.true((await answered).includes(Buffer.of(10, 9, 0, 1)))
  }
})

test.serial('createMdnsService() says so when the port is taken and not shared', async (t) => {
  await enterOwnNetwork()
  const taken = await openUdp({ port: 5353 })
  const service = createMdnsService({
    name: 'KatesKit',
    ip: parseIpv4('127.0.0.1'),
    ...{ port: 8080, ...TLS },
    version: '1',
    id: 'a1b2c3',
    log: silentLog,
  })
  const error = await t.throwsAsync(service.start(), { instanceOf: KitError })
  t.like(error, { code: 'conflict', fix: 'ss -ulpn sport = :5353' })
  await service.stop()
  taken.close()
})

test('limitMessages() lets 200 messages a second through, and everything else', (t) => {
  const socket = createSocket('udp4')
  let nowMs = 10_000
  limitMessages(socket, 200, () => nowMs)
  let [heard, others] = [0, 0]
  socket.on('message', () => heard++)
  socket.on('error', () => others++)
  const flood = () => {
    for (let n = 0; n < 1_000; n++) socket.emit('message', Buffer.alloc(0), {} as never)
    return heard
  }
  t.is(flood(), 200)
  nowMs = 10_999
  t.is(flood(), 200)
  nowMs = 11_000
  t.is(flood(), 400)
  socket.emit('error', new Error('told all the same'))
  t.is(others, 1)
  socket.close()
})
