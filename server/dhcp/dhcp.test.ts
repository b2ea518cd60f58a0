// The running service on a LAN of its own, with clients, servers and relay agents that nobody here wrote.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, writeFile } from 'node:fs/promises'

import test, { type ExecutionContext } from 'ava'

import { systemClock } from '#lib/clock.ts'
import { parseIpv4, parseSubnet } from '#lib/ipv4.ts'
import { silentLog } from '#lib/log.ts'
import type { Mac } from '#lib/mac.ts'
import type { Event } from '#machine/event.ts'
import type { Sighting } from '#machine/ports.ts'
import { openUdp } from '#sockets/udp.ts'
import { openStore, type Store } from '#store/store.ts'
import { readDhcpRequests } from '#testing/captured-dhcp.ts'
import type { DhcpFloodArguments } from '#testing/dhcp-flood.ts'
import type { DhcpServerArguments } from '#testing/dhcp-server.ts'
import { type Lan, linesOf, makeFolder, makeLan } from '#testing/lan.ts'
import { enterOwnNetwork, type Neighbour } from '#testing/own-network.ts'
import { decodeDhcp, findPacketMac } from '#wire/dhcp4.ts'
import { MESSAGE_TYPE, OPTION } from '#wire/dhcp4-codes.ts'
import { encodeDhcp } from '#wire/dhcp4-encode.ts'
import { findMessageType, uint8Bytes } from '#wire/dhcp4-values.ts'

import { createDhcpService, type DhcpService, type DhcpServiceOptions } from './service.ts'

const SERVER = parseIpv4('10.77.0.1')
const ROUTER = '10.77.0.2'
const CLIENT_SCRIPT = `#!/bin/sh
# For udhcpc ($1 says why) and dhclient ($reason): puts the address on and says what it was given.
say="\${1:-$reason}"
address="\${ip:-$new_ip_address}"
case "$say" in
  bound | renew | BOUND | RENEW | REBOOT)
    rm "$0.in-use" 2> /dev/null && exit 1 # once: dhclient takes it for an address in use
    ip address replace "$address/24" dev "$interface" ;;
  deconfig | RELEASE | PREINIT) ip address flush dev "$interface" ;;
esac
echo "$say address=$address router=$router$new_routers dns=$dns$new_domain_name_servers domain=$domain$new_domain_name" \\
  "hostname=$hostname$new_host_name lease=$lease$new_dhcp_lease_time"
`
const DHCLIENT_CONF =
  'timeout 10; retry 5; reboot 3; select-timeout 0; initial-interval 1; backoff-cutoff 1;\n'

let folder: Awaited<ReturnType<typeof makeFolder>>
let lan: Lan
let alice: Neighbour
let bob: Neighbour
let router: Neighbour
let script: string

test.before(async () => {
  await enterOwnNetwork()
  folder = await makeFolder()
  lan = await makeLan('br0', `${SERVER}/24`)
  alice = await lan.addHost()
  bob = await lan.addHost()
  router = await lan.addHost(`${ROUTER}/24`)
  script = folder.file('client-script')
  await writeFile(script, CLIENT_SCRIPT)
  await chmod(script, 0o755)
})

test.after.always(async () => {
  lan?.stop()
  await folder?.remove()
})

interface Running {
  readonly service: DhcpService
  readonly store: Store
  readonly seen: Map<Mac, Sighting>
  /** `kind message` of every event so far. */
  history(): Promise<readonly string[]>
}

let stores = 0

/** A service over a real store, stopped when the test ends. */
async function serve(t: ExecutionContext, overrides: Partial<DhcpServiceOptions> = {}): Promise<Running> {
  t.timeout(60_000) // a client that never says what it should is one failure, not the end of the run
  const store = await openStore({ file: folder.file(`${stores++}.db`), clock: systemClock, log: silentLog })
  const seen = new Map<Mac, Sighting>()
  const service = createDhcpService({
    mode: 'server',
    networkInterface: 'br0',
    serverIp: SERVER,
    subnet: parseSubnet('10.77.0.0/24'),
    pool: { first: parseIpv4('10.77.0.10'), last: parseIpv4('10.77.0.250') },
    router: parseIpv4(ROUTER),
    dns: [parseIpv4('10.77.0.53'), parseIpv4('10.77.0.54')],
    domain: 'kit.test',
    leaseSeconds: 3600,
    reservationFor: () => undefined,
    reservedTo: () => undefined,
    hostnameFor: () => 'from-profile',
    httpBaseUrl: `http://${SERVER}:8080`,
    sightings: { seen: async (mac, sighting) => void seen.set(mac, sighting) },
    ...{
      leases: store.leases,
      events: store.events,
      openUdp,
      clock: systemClock,
      log: silentLog,
      probeMs: 20,
    },
    ...overrides,
  })
  t.teardown(async () => {
    await service.stop()
    await store.close()
  })
  await service.start()
  const told = (event: Event) => `${event.kind} ${event.message}`
  return { service, store, seen, history: async () => (await store.events.list({ limit: 10_000 })).map(told) }
}

/** Starts a program on a host; killed when the test ends. */
function start(t: ExecutionContext, host: Neighbour, command: string, ...args: readonly string[]) {
  const child = host.start(command, ...args)
  t.teardown(() => stop(child))
  return Object.assign(linesOf(child), { child })
}

async function stop(child: ChildProcess, signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const closed = once(child, 'close')
  child.kill(signal)
  await closed
}

const udhcpc = (t: ExecutionContext, host: Neighbour, ...more: readonly string[]) =>
  start(t, host, 'busybox', 'udhcpc', '-f', '-i', 'eth0', '-s', script, '-t', '5', '-T', '1', ...more)

const addressIn = (line: string) => /address=(\S+)/.exec(line)?.[1]

async function leaseKinds(store: Store): Promise<readonly string[]> {
  const leases = await store.leases.list()
  return leases.map((lease) => `${lease.ip} ${lease.expiresMs > Date.now() ? lease.kind : 'ended'}`)
}

test.serial('busybox udhcpc obtains, renews and releases an address', async (t) => {
  const { store, history } = await serve(t)
  const client = udhcpc(t, alice, '-O', 'hostname', '-x', 'hostname:alice')
  const bound = await client.next(/^bound/)
  t.is(
    bound,
    'bound address=10.77.0.10 router=10.77.0.2 dns=10.77.0.53 10.77.0.54 domain=kit.test hostname=from-profile lease=3600',
  )
  const [before] = await store.leases.list()
  t.is(before?.hostname, 'alice')
  client.child.kill('SIGUSR1')
  t.regex(await client.next(/^renew/), /address=10\.77\.0\.10 /)
  const [after] = await store.leases.list()
  t.true((after?.expiresMs ?? 0) > (before?.expiresMs ?? 0))
  client.child.kill('SIGUSR2')
  await client.next(/^deconfig/)
  // A second client makes sure that the RELEASE before it has been dealt with.
  t.is(addressIn(await udhcpc(t, bob).next(/^bound/)), '10.77.0.11')
  t.deepEqual(await leaseKinds(store), ['10.77.0.10 ended', '10.77.0.11 leased'])
  const leased = (await history()).filter((line) => line.startsWith('dhcp-leased'))
  t.is(leased.length, 2)
})

test.serial('dhclient obtains an address, reboots with it, and releases it', async (t) => {
  const { store } = await serve(t)
  const dhclient = await makeDhclient(t, alice)
  const first = dhclient()
  t.is(addressIn(await first.next(/^BOUND/)), '10.77.0.10')
  await first.next(/^bound to/) // now it has written its lease down
  await stop(first.child)
  const second = dhclient()
  await second.next(/DHCPREQUEST for 10\.77\.0\.10 on eth0 to 255/)
  t.is(addressIn(await second.next(/^REBOOT/)), '10.77.0.10')
  await second.next(/^bound to/)
  await stop(second.child)
  await dhclient('-r').next(/DHCPRELEASE/)
  t.is(addressIn(await udhcpc(t, bob).next(/^bound/)), '10.77.0.11')
  t.deepEqual(await leaseKinds(store), ['10.77.0.10 ended', '10.77.0.11 leased'])
})

test.serial('dhclient declines an address in use, and nobody else is given it', async (t) => {
  const { store, history } = await serve(t)
  await writeFile(`${script}.in-use`, '')
  const client = (await makeDhclient(t, alice))()
  await client.next(/DHCPDECLINE/)
  t.is(addressIn(await udhcpc(t, bob, '-r', '10.77.0.10').next(/^bound/)), '10.77.0.11')
  t.deepEqual(await leaseKinds(store), ['10.77.0.10 declined', '10.77.0.11 leased'])
  t.true((await history()).some((line) => /^dhcp-declined .* found 10\.77\.0\.10 in use/.test(line)))
})

test.serial('dhclient is told by a NAK that it came from another network', async (t) => {
  const { history } = await serve(t)
  const dhclient = await makeDhclient(t, alice, {
    lease:
      'lease { interface "eth0"; fixed-address 192.168.9.9; renew 6 2037/1/1 0:0:0; rebind 6 2037/1/1 0:0:0; expire 6 2037/1/1 0:0:0; }\n',
  })
  const client = dhclient()
  await client.next(/DHCPNAK from 10\.77\.0\.1/)
  t.is(addressIn(await client.next(/^BOUND/)), '10.77.0.10')
  t.true((await history()).some((line) => line.startsWith('dhcp-refused') && line.endsWith('wrong-subnet')))
})

test.serial('the `dhcp` npm client is bound', async (t) => {
  const { store } = await serve(t)
  await useBroadcasts(alice)
  const client = start(
    t,
    alice,
    process.execPath,
    '-e',
    `const client = require('dhcp').createClient({ mac: '52:54:00:aa:bb:cc' })
     client.on('bound', (state) => console.log('bound', state.address, state.options.router, state.leasePeriod))
     client.listen()
     client.on('listening', () => client.sendDiscover())`,
  )
  t.is(await client.next(/^bound/), "bound 10.77.0.10 [ '10.77.0.2' ] 3600")
  t.deepEqual(await leaseKinds(store), ['10.77.0.10 leased'])
})

test.serial('start() refuses server mode beside dnsmasq, and names it', async (t) => {
  await startDnsmasq(t, router, '--dhcp-range=10.77.0.100,10.77.0.150,1h')
  await t.throwsAsync(serve(t, { probeMs: 3000 }), {
    name: 'KitError',
    code: 'conflict',
    message: 'Cannot start DHCP in server mode: 10.77.0.2 already answers DHCP on br0',
  })
})

test.serial('start() refuses server mode beside dnsmasq also when port 68 is in use', async (t) => {
  await startDnsmasq(t, router, '--dhcp-range=10.77.0.100,10.77.0.150,1h')
  const ownClient = await openUdp({ port: 68 })
  t.teardown(() => void ownClient.close())
  await t.throwsAsync(serve(t, { probeMs: 3000 }), {
    code: 'conflict',
    message: /10\.77\.0\.2 already answers/,
  })
})

test.serial('start() is not put off by a proxy DHCP server', async (t) => {
  await startDnsmasq(t, router, '--dhcp-range=10.77.0.0,proxy', '--pxe-service=X86-64_EFI,boot,loader')
  await serve(t, { probeMs: 300 })
  t.pass()
})

test.serial('proxy mode leaves addresses to dnsmasq and boots beside it', async (t) => {
  const { history, seen, service, store } = await serve(t, { mode: 'proxy' })
  await startDnsmasq(t, router, '--dhcp-range=10.77.0.100,10.77.0.150,1h')
  t.regex(addressIn(await udhcpc(t, alice).next(/^bound/)) ?? '', /^10\.77\.0\.1[0-5]\d$/)
  t.is(service.counts().answered, 0)
  const { payload } = await firmwarePacket('ovmf-pxe-then-ipxe-efi')
  t.like(await say(bob, payload), { yourIp: '0.0.0.0', bootFile: 'snponly.efi' })
  t.deepEqual([...seen.keys()], [findPacketMac(decodeDhcp(payload))])
  t.deepEqual(await store.leases.list(), [])
  t.is((await history()).filter((line) => line.startsWith('dhcp-offered')).length, 1)
})

test.serial('server mode gives OVMF an address and its loader in one offer', async (t) => {
  const { history } = await serve(t)
  const { payload } = await firmwarePacket('ovmf-pxe-then-ipxe-efi')
  const offer = await say(bob, payload)
  t.like(offer, { yourIp: '10.77.0.10', bootFile: 'snponly.efi', nextServerIp: SERVER })
  t.is(findMessageType(offer.options), MESSAGE_TYPE.offer)
  await say(bob, payload)
  t.is((await history()).filter((line) => line.startsWith('dhcp-offered')).length, 1)
})

test.serial('a relay agent on our own network gets its client an address', async (t) => {
  const { store } = await serve(t)
  const far = await addRelay(t, '10.77.0.6/32')
  t.is(addressIn(await udhcpc(t, far).next(/^bound/)), '10.77.0.10')
  t.deepEqual(await leaseKinds(store), ['10.77.0.10 leased'])
})

test.serial('a relay agent of another network is refused with an event', async (t) => {
  const { history, service } = await serve(t)
  const far = await addRelay(t, '10.88.0.1/24')
  const client = udhcpc(t, far, '-n', '-t', '1')
  await client.next(/no lease, failing/)
  t.is(service.counts().answered, 0)
  const refused = (await history()).filter((line) => line.startsWith('dhcp-refused'))
  t.deepEqual(refused, ['dhcp-refused no pool for the network of relay agent 10.88.0.1'])
})

test.serial('leases survive `kill -9` of the server', async (t) => {
  const options: DhcpServerArguments = {
    storeFile: folder.file('killed.db'),
    networkInterface: 'br0',
    serverIp: SERVER,
    subnet: '10.77.0.0/24',
    pool: { first: '10.77.0.10', last: '10.77.0.11' },
    leaseSeconds: 3600,
  }
  const startServer = async () => {
    const entry = new URL('../testing/dhcp-server.ts', import.meta.url).pathname
    const child = spawn(process.execPath, [entry, JSON.stringify(options)])
    t.teardown(() => stop(child))
    await linesOf(child).next(/^ready/)
    return child
  }
  const doomed = await startServer()
  const client = udhcpc(t, alice)
  const address = addressIn(await client.next(/^bound/))
  await stop(doomed, 'SIGKILL')
  await startServer()
  t.not(addressIn(await udhcpc(t, bob).next(/^bound/)), address)
  client.child.kill('SIGUSR1')
  t.is(addressIn(await client.next(/^(renew|bound)/)), address)
})

for (const { mode, packets, ports } of [
  { mode: 'server', packets: 40_000, ports: [67] },
  { mode: 'proxy', packets: 60_000, ports: [67, 4011] },
] as const) {
  test.serial(`${packets} damaged packets leave ${mode} mode answering`, async (t) => {
    const { service, seen, history } = await serve(t, { mode })
    await bob.run('ip', 'address', 'replace', '10.77.0.251/24', 'dev', 'eth0')
    const boot = decodeDhcp((await firmwarePacket('ovmf-pxe-then-ipxe-efi')).payload)
    const inform = { ...boot, clientIp: parseIpv4('10.77.0.251') }
    const options = new Map([...boot.options, [OPTION.messageType, uint8Bytes(MESSAGE_TYPE.inform)]])
    const question = encodeDhcp(mode === 'server' ? { ...inform, options } : boot)
    const flood: DhcpFloodArguments = {
      ...{ targetIp: SERVER, ports, packets },
      question: Buffer.from(question).toString('hex'),
    }
    const entry = new URL('../testing/dhcp-flood.ts', import.meta.url).pathname
    const child = start(t, bob, process.execPath, entry, JSON.stringify(flood))
    await child.next(/^answered after/)
    const counts = service.counts()
    t.is(counts.failed, 0)
    t.true(counts.received > packets, JSON.stringify(counts))
    t.true(counts.broken > packets / 100, JSON.stringify(counts))
    t.true(seen.size < 4000, `${seen.size} made-up machines`)
    t.true((await history()).length < 7000)
    t.log(counts)
  })
}

/** dhclient with files of its own; each call starts it once more on the same leases. */
async function makeDhclient(t: ExecutionContext, host: Neighbour, { lease = '' } = {}) {
  const name = `dhclient-${stores}`
  const files = {
    conf: folder.file(`${name}.conf`),
    leases: folder.file(`${name}.leases`),
    pid: folder.file(name),
  }
  await writeFile(files.conf, DHCLIENT_CONF)
  await writeFile(files.leases, lease)
  const args = ['-4', '-d', '-v', '-cf', files.conf, '-lf', files.leases, '-pf', files.pid, '-sf', script]
  return (...more: readonly string[]) => start(t, host, 'dhclient', ...args, ...more, 'eth0')
}

async function startDnsmasq(t: ExecutionContext, host: Neighbour, ...args: readonly string[]): Promise<void> {
  const quiet = [
    '--conf-file=/dev/null',
    '--port=0',
    '--no-ping',
    '--user=root',
    '--pid-file=',
    '--log-facility=-',
  ]
  const leases = `--dhcp-leasefile=${folder.file(`dnsmasq-${stores++}.leases`)}`
  const server = start(t, host, 'dnsmasq', '--keep-in-foreground', '--log-dhcp', ...quiet, leases, ...args)
  await server.next(/DHCP(, IP range|, proxy| relay)/)
}

/** A host on the LAN on which dnsmasq passes DHCP on, and the client behind it. */
async function addRelay(t: ExecutionContext, address: string): Promise<Neighbour> {
  const relay = await lan.addHost('10.77.0.5/24')
  const client = await lan.addHostBehind(relay, address)
  await startDnsmasq(t, relay, `--dhcp-relay=${address.split('/')[0]},${SERVER}`)
  return client
}

/** The first packet that the capture's firmware sends. */
async function firmwarePacket(capture: string) {
  const packet = (await readDhcpRequests()).find(({ name }) => name.startsWith(`${capture} `))
  if (packet === undefined) throw new Error(`No request in ${capture}`)
  return packet
}

/** Broadcasts one packet from a host and resolves with the server's reply. */
async function say(host: Neighbour, payload: Uint8Array) {
  await useBroadcasts(host)
  const hex = await host.run(
    process.execPath,
    '-e',
    `const socket = require('node:dgram').createSocket('udp4')
     socket.on('message', (bytes, from) => {
       if (from.address !== '${SERVER}') return
       process.stdout.write(bytes.toString('hex'))
       socket.close()
     })
     socket.bind(68, () => {
       socket.setBroadcast(true)
       socket.send(Buffer.from('${Buffer.from(payload).toString('hex')}', 'hex'), 67, '255.255.255.255')
     })`,
  )
  return decodeDhcp(Buffer.from(hex, 'hex'))
}

/** A plain socket sends its broadcasts by the default route, which goes with the last address. */
async function useBroadcasts(host: Neighbour): Promise<void> {
  await host.run('ip', 'route', 'replace', 'default', 'dev', 'eth0')
}
