// Floods of one attacker against the whole server, while a machine that is known boots beside it: every listener in turn.

import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { chmod, writeFile } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { connect as connectTls } from 'node:tls'

import test, { type ExecutionContext } from 'ava'

import { KitError } from '#lib/errors.ts'
import { ipv4FromNumber, ipv4ToNumber, parseIpv4 } from '#lib/ipv4.ts'
import { macToPath, parseMac } from '#lib/mac.ts'
import { pollUntil } from '#lib/retry.ts'
import { seal } from '#sealing/age-file.ts'
import { type AttackedLan, IMAGE, SERVER_IP, startAttackedLan } from '#testing/attacked-lan.ts'
import { linesOf } from '#testing/lan.ts'
import type { Neighbour } from '#testing/own-network.ts'
import { ProvedMachine, speak } from '#testing/proved-machine.ts'
import { makeMachineKeys } from '#testing/test-machine.ts'
import type { UdpFloodArguments } from '#testing/udp-flood.ts'

const MACHINE = new ProvedMachine(parseMac('02:4b:69:74:00:01'), '10.77.0.50')
const SECRET = randomBytes(24).toString('hex')
const SERVER = parseIpv4(SERVER_IP)
const HTTP = { host: SERVER_IP, port: 8080 }
const TLS = { host: SERVER_IP, port: 8443 }
/** The attacker's own, for TCP, where none can be forged. */
const CROWD = Array.from({ length: 16 }, (_, n) => `10.77.0.${60 + n}`)
const FLOOD = new URL('./testing/udp-flood.ts', import.meta.url).pathname
/** Idle it has some 150 MiB. What is asserted is that a flood does not fill the memory, not how little it takes. */
const MOST_MIB = 900

/** udhcpc says why it calls, and what it was given. */
const UDHCPC_SCRIPT =
  '#!/bin/sh\n[ "$1" = bound ] && ip address replace "$ip/24" dev "$interface"\necho "$1 $ip"\n'

let lan: AttackedLan
/** As the machine's firmware: its DHCP and TFTP go over the wire. */
let firmware: Neighbour
let attacker: Neighbour

test.before(async () => {
  const folder = `profiles/machines/${macToPath(MACHINE.mac)}`
  const files = {
    'profiles/defaults/boot': 'live\n',
    'profiles/roles/worker/root/etc/motd': 'public\n',
    [`${folder}/role`]: 'worker\n',
  }
  lan = await startAttackedLan(files, [MACHINE.from, ...CROWD])
  const { recipient } = (await lan.api('/secrets/recipient')).body as { recipient: string }
  await lan.write({ [`${folder}/secret/etc/key.age`]: await seal(Buffer.from(SECRET), recipient) })
  await MACHINE.prove(lan)
  firmware = await lan.lan.addHost()
  attacker = await lan.lan.addHost('10.77.0.200/24')
  // A cable takes up to a second to carry anything, in which a flood would be lost.
  await attacker.run(
    'curl',
    '-sS',
    '--retry',
    '9',
    '--retry-all-errors',
    '-m',
    '60',
    `http://${SERVER_IP}:8080/healthz`,
  )
  await firmware.run('ip', 'link', 'set', 'dev', 'eth0', 'address', MACHINE.mac)
  const script = join(lan.home, 'udhcpc')
  await writeFile(script, UDHCPC_SCRIPT)
  await chmod(script, 0o755)
})

test.after.always(() => lan?.stop())

test.afterEach(async (t) => {
  const { nowMiB, peakMiB } = await lan.memory()
  t.log(`memory of the server: ${nowMiB} MiB, at its peak ${peakMiB} MiB`)
  t.true(lan.isRunning())
  t.true(peakMiB < MOST_MIB)
})

/** A flood that has begun; it ends with the test. */
async function flood(t: ExecutionContext, options: Omit<UdpFloodArguments, 'serverIp'>): Promise<void> {
  const words: UdpFloodArguments = { ...options, serverIp: SERVER }
  const child = attacker.start(process.execPath, FLOOD, JSON.stringify(words))
  t.teardown(async () => {
    const ended = once(child, 'exit')
    child.kill('SIGKILL')
    await ended
  })
  await linesOf(child).next(/^flooded/)
}

/** Until the flood has got so far. */
function wait<Found>(otherwise: string, probe: () => Promise<Found | undefined>): Promise<Found> {
  const late = () => new KitError('unavailable', `Cannot go on: ${otherwise}`)
  return pollUntil(probe, { everyMs: 100, timeoutMs: 60_000, late })
}

async function takeLease(t: ExecutionContext): Promise<string> {
  await firmware.run('ip', 'address', 'flush', 'dev', 'eth0')
  const client = firmware.start(
    ...(['busybox', 'udhcpc', '-f', '-i', 'eth0', '-s', join(lan.home, 'udhcpc')] as const),
    ...['-t', '30', '-T', '1', '-q'],
  )
  t.teardown(() => void client.kill('SIGKILL'))
  return (await linesOf(client).next(/^bound /, 60_000)).replace('bound ', '')
}

/** Bytes of the whole loader, over TFTP as firmware asks for it: again when nobody answers. */
async function loadLoader(): Promise<number> {
  const url = `tftp://${SERVER_IP}/snponly.efi`
  const curl = ['--tftp-blksize', '1468', '--retry', '5', '--retry-all-errors', '--connect-timeout', '20']
  const size = await firmware.run('curl', '-sS', ...curl, '-o', '/dev/null', '-w', '%{size_download}', url)
  return Number(size)
}

/** What a machine does of importance, over HTTP and HTTPS. */
async function bootOf(t: ExecutionContext): Promise<void> {
  const root = await MACHINE.plain('GET', `/images/${IMAGE}/root.squashfs`)
  t.true(root.bytes.equals(lan.root), `${root.status}, ${root.bytes.length} bytes`)
  await MACHINE.netboot()
  const secrets = await MACHINE.install()
  t.is(secrets.status, 200)
  t.true(secrets.bytes.includes(SECRET))
}

test.serial('a machine boots beside nobody', async (t) => {
  await bootOf(t)
})

test.serial('DHCP: a known machine gets its lease while made-up MACs take all they can', async (t) => {
  const first = ipv4ToNumber(parseIpv4('10.77.0.100'))
  const addresses = Array.from({ length: 40 }, (_, n) => ipv4FromNumber(first + n))
  await flood(t, { kind: 'dhcp', from: ['10.77.0.200'], addresses, packets: 20_000 })
  const leased = async () => {
    const { leases } = (await lan.api('/leases')).body as { leases: { ip: string; mac: string }[] }
    return leases.filter(({ mac }) => mac !== MACHINE.mac).map(({ ip }) => Number(ip.split('.')[3]))
  }
  const most = async () => ((await leased()).length > 20 ? (await leased()).length : undefined)
  const count = await wait('the addresses are not taken', most) // the others are on offer
  t.log(`${count} of 40 addresses are leased to made-up machines`)
  t.deepEqual(
    (await leased()).filter((last) => last >= 130),
    [],
    'none of the quarter that is kept',
  )
  const address = await takeLease(t)
  t.log(`the known machine got ${address}`)
  t.regex(address, /^10\.77\.0\.1\d\d$/)
})

test.serial('TFTP: a known machine gets the loader while half-open transfers take every place', async (t) => {
  const from = Array.from({ length: 40 }, (_, n) => `10.77.0.${201 + n}`)
  for (const address of from) await attacker.run('ip', 'address', 'add', `${address}/24`, 'dev', 'eth0')
  await takeLease(t)
  await flood(t, { kind: 'tftp', from, addresses: [], packets: 1_500 })
  const refused = async () => {
    return (await lan.log()).split('\n').filter((line) => line.includes('TFTP: too many transfers')).length
  }
  const count = await wait('no place is refused', async () => (await refused()) || undefined)
  t.log(`${count} requests were left unanswered so far`)
  t.is(await loadLoader(), 'ipxe/snponly.efi'.length * 20_000)
})

/** Connections of the crowd, opened as far as the server lets them; ended with the test. */
async function crowd(
  t: ExecutionContext,
  count: number,
  open: (from: string, n: number) => Socket,
): Promise<Socket[]> {
  const sockets = Array.from({ length: count }, (_, n) => {
    const socket = open(CROWD[n % CROWD.length] ?? '', n)
    socket.on('error', () => {})
    return socket
  })
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
  })
  await Promise.all(
    sockets.map((socket) =>
      Promise.race([once(socket, 'connect'), once(socket, 'close')]).catch(() => undefined),
    ),
  )
  return sockets
}

const stillOpen = (sockets: readonly Socket[]) => sockets.filter((socket) => !socket.destroyed).length

const FLOODS: readonly (readonly [title: string, open: (from: string, n: number) => Socket])[] = [
  ['2,400 idle connections to HTTP', (from) => connect({ ...HTTP, localAddress: from })],
  [
    '2,400 heads that never end',
    (from) => {
      const socket = connect({ ...HTTP, localAddress: from })
      socket.write('GET /healthz HTTP/1.1\r\nHost: kit\r\nX-Slow: ')
      return socket
    },
  ],
  [
    '2,400 bodies that never end',
    (from) => {
      const socket = connect({ ...HTTP, localAddress: from })
      const path = `/v1/machines/${macToPath(MACHINE.mac)}/events`
      socket.write(`POST ${path} HTTP/1.1\r\nHost: kit\r\nContent-Length: 16000\r\n\r\n${'{'.repeat(8000)}`)
      return socket
    },
  ],
  [
    '2,400 readers that do not read',
    (from, n) => {
      const socket = connect({ ...HTTP, localAddress: from })
      socket.pause()
      const at = (n * 7919 * 512) % (20 << 20)
      socket.write(`GET /images/${IMAGE}/root.squashfs?from=${at} HTTP/1.1\r\nHost: kit\r\n\r\n`)
      return socket
    },
  ],
  [
    '2,400 TLS handshakes that stop half-way',
    (from) => {
      const socket = connect({ ...TLS, localAddress: from })
      // A record that says it is a ClientHello of 512 bytes, of which 16 come (RFC 8446 §5.1).
      socket.write(Buffer.concat([Buffer.from('1603010200010001fc0303', 'hex'), randomBytes(16)]))
      return socket
    },
  ],
  [
    '2,400 connections to HTTPS that ask for what they may not have',
    (from) => {
      const socket = connectTls({
        socket: connect({ ...TLS, localAddress: from }),
        rejectUnauthorized: false,
      })
      socket.write('GET /api/v1/machines HTTP/1.1\r\nHost: kit\r\n\r\n'.repeat(20))
      return socket
    },
  ],
]

for (const [title, open] of FLOODS) {
  test.serial(`HTTP: a known machine boots beside ${title}`, async (t) => {
    const sockets = await crowd(t, 2_400, open)
    t.log(`${stillOpen(sockets)} connections of the attacker are open`)
    await bootOf(t)
    t.log(`${stillOpen(sockets)} are open when the machine has booted`)
  })
}

test.serial('identities: a known machine goes on while a stranger asks for one without end', async (t) => {
  const { csr } = await makeMachineKeys()
  const body = JSON.stringify({ csr, macs: [], commitment: '0'.repeat(64) })
  const statuses = new Map<number, number>()
  const ask = async (n: number) => {
    const mac = `02-00-00-00-${(n >> 8).toString(16).padStart(2, '0')}-${(n & 255).toString(16).padStart(2, '0')}`
    const spoken = { method: 'POST', path: `/v1/machines/${mac}/identity`, body }
    const from = CROWD[n % CROWD.length] ?? ''
    const { status } = await speak({ ...spoken, over: 'tls', from }).catch(() => ({ status: 0 }))
    statuses.set(status, (statuses.get(status) ?? 0) + 1)
  }
  const asking = Promise.all(Array.from({ length: 600 }, (_, n) => ask(n)))
  await bootOf(t)
  await asking
  t.log('answers by status (0: cut):', Object.fromEntries(statuses))
  t.falsy(statuses.get(500))
  const { identities } = (await lan.api('/identities')).body as { identities: unknown[] }
  t.is(identities.length, 1)
})
