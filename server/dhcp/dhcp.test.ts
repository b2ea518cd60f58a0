// The running service on a LAN of its own, with clients, servers and relay agents that nobody here wrote.

import { spawn } from 'node:child_process'

import test from 'ava'

import { parseIpv4 } from '#lib/ipv4.ts'
import type { OpenUdp } from '#lib/udp.ts'
import { openUdp } from '#sockets/udp.ts'
import type { Store } from '#store/store.ts'
import type { DhcpFloodArguments } from '#testing/dhcp-flood.ts'
import { DhcpLan, firmwarePacket, SERVER, say, start, stop, useBroadcasts } from '#testing/dhcp-lan.ts'
import type { DhcpServerArguments } from '#testing/dhcp-server.ts'
import { linesOf } from '#testing/lan.ts'
import { ip, type Neighbour } from '#testing/own-network.ts'
import { decodeDhcp, findPacketMac } from '#wire/dhcp4.ts'
import { MESSAGE_TYPE, OPTION } from '#wire/dhcp4-codes.ts'
import { encodeDhcp } from '#wire/dhcp4-encode.ts'
import { findMessageType, uint8Bytes } from '#wire/dhcp4-values.ts'

let lan: DhcpLan
let alice: Neighbour
let bob: Neighbour
let router: Neighbour

test.before(async () => {
  lan = await DhcpLan.make()
  alice = await lan.lan.addHost()
  bob = await lan.lan.addHost()
  router = await lan.lan.addHost('10.77.0.2/24')
})

test.after.always(() => lan?.stop())

const addressIn = (line: string) => /address=(\S+)/.exec(line)?.[1]

async function leaseKinds(store: Store): Promise<readonly string[]> {
  const leases = await store.leases.list()
  return leases.map((lease) => `${lease.ip} ${lease.expiresMs > Date.now() ? lease.kind : 'ended'}`)
}

test.serial('busybox udhcpc obtains, renews and releases an address', async (t) => {
  const { store, history } = await lan.serve(t)
  const client = lan.udhcpc(t, alice, '-O', 'hostname', '-x', 'hostname:alice')
  await client.next(/^deconfig/) // how it begins
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
  t.is(addressIn(await lan.udhcpc(t, bob).next(/^bound/)), '10.77.0.11')
  t.deepEqual(await leaseKinds(store), ['10.77.0.10 ended', '10.77.0.11 leased'])
  const leased = (await history()).filter((line) => line.startsWith('dhcp-leased'))
  t.is(leased.length, 2)
})

test.serial('dhclient obtains an address, reboots with it, and releases it', async (t) => {
  const { store } = await lan.serve(t)
  const dhclient = await lan.makeDhclient(t, alice)
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
  t.is(addressIn(await lan.udhcpc(t, bob).next(/^bound/)), '10.77.0.11')
  t.deepEqual(await leaseKinds(store), ['10.77.0.10 ended', '10.77.0.11 leased'])
})

test.serial('dhclient declines an address in use, and nobody else is given it', async (t) => {
  const { store, history } = await lan.serve(t)
  await lan.takeNextAddress()
  const client = (await lan.makeDhclient(t, alice))()
  await client.next(/DHCPDECLINE/)
  t.is(addressIn(await lan.udhcpc(t, bob, '-r', '10.77.0.10').next(/^bound/)), '10.77.0.11')
  t.deepEqual(await leaseKinds(store), ['10.77.0.10 declined', '10.77.0.11 leased'])
  t.true((await history()).some((line) => /^dhcp-declined .* found 10\.77\.0\.10 in use/.test(line)))
})

test.serial('dhclient is told by a NAK that it came from another network', async (t) => {
  const { history } = await lan.serve(t)
  const dhclient = await lan.makeDhclient(t, alice, {
    lease:
      'lease { interface "eth0"; fixed-address 192.168.9.9; renew 6 2037/1/1 0:0:0; rebind 6 2037/1/1 0:0:0; expire 6 2037/1/1 0:0:0; }\n',
  })
  const client = dhclient()
  await client.next(/DHCPNAK from 10\.77\.0\.1/)
  t.is(addressIn(await client.next(/^BOUND/)), '10.77.0.10')
  t.true((await history()).some((line) => line.startsWith('dhcp-refused') && line.endsWith('wrong-subnet')))
})

test.serial('the `dhcp` npm client is bound', async (t) => {
  const { store } = await lan.serve(t)
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
  await lan.startDnsmasq(t, router, '--dhcp-range=10.77.0.100,10.77.0.150,1h')
  await t.throwsAsync(lan.serve(t, { probeMs: 3000 }), {
    name: 'KitError',
    code: 'conflict',
    message: 'Cannot start DHCP in server mode: 10.77.0.2 already answers DHCP on br0',
  })
})

test.serial('start() refuses server mode beside dnsmasq also when port 68 is in use', async (t) => {
  await lan.startDnsmasq(t, router, '--dhcp-range=10.77.0.100,10.77.0.150,1h')
  const ownClient = await openUdp({ port: 68 })
  t.teardown(() => void ownClient.close())
  await t.throwsAsync(lan.serve(t, { probeMs: 3000 }), {
    code: 'conflict',
    message: /10\.77\.0\.2 already answers/,
  })
})

test.serial('start() refuses server mode on an interface that is down', async (t) => {
  await ip('link set dev br0 down')
  t.teardown(() => ip('link set dev br0 up'))
  await t.throwsAsync(lan.serve(t), {
    code: 'unavailable',
    message: 'Cannot ask for other DHCP servers on br0: nothing can be sent there',
  })
})

test.serial('start() survives errors of its sockets, that of the probe too', async (t) => {
  let sockets = 0
  const openFaulty: OpenUdp = async (options) => {
    const socket = await openUdp(options)
    sockets++
    setImmediate(() => socket.emit('error', new Error('ENETDOWN'))) // thrown where nobody listens
    return socket
  }
  await lan.serve(t, { openUdp: openFaulty })
  t.is(sockets, 3)
})

test.serial('start() is not put off by a proxy DHCP server', async (t) => {
  await lan.startDnsmasq(t, router, '--dhcp-range=10.77.0.0,proxy', '--pxe-service=X86-64_EFI,boot,loader')
  await lan.serve(t, { probeMs: 300 })
  t.pass()
})

test.serial('proxy mode leaves addresses to dnsmasq and boots beside it', async (t) => {
  const { history, seen, service, store } = await lan.serve(t, { mode: 'proxy' })
  await lan.startDnsmasq(t, router, '--dhcp-range=10.77.0.100,10.77.0.150,1h')
  t.regex(addressIn(await lan.udhcpc(t, alice).next(/^bound/)) ?? '', /^10\.77\.0\.1[0-5]\d$/)
  t.is(service.counts().answered, 0)
  const { payload } = await firmwarePacket('ovmf-pxe-then-ipxe-efi')
  t.like(await say(bob, payload), { yourIp: '0.0.0.0', bootFile: 'snponly.efi' })
  t.deepEqual([...seen.keys()], [findPacketMac(decodeDhcp(payload))])
  t.deepEqual(await store.leases.list(), [])
  t.is((await history()).filter((line) => line.startsWith('dhcp-offered')).length, 1)
})

test.serial('server mode gives OVMF an address and its loader in one offer', async (t) => {
  const { history } = await lan.serve(t)
  const { payload } = await firmwarePacket('ovmf-pxe-then-ipxe-efi')
  const offer = await say(bob, payload)
  t.like(offer, { yourIp: '10.77.0.10', bootFile: 'snponly.efi', nextServerIp: SERVER })
  t.is(findMessageType(offer.options), MESSAGE_TYPE.offer)
  await say(bob, payload)
  t.is((await history()).filter((line) => line.startsWith('dhcp-offered')).length, 1)
})

test.serial('a relay agent on our own network gets its client an address', async (t) => {
  const { store } = await lan.serve(t)
  const far = await lan.addRelay(t, '10.77.0.6/32')
  t.is(addressIn(await lan.udhcpc(t, far).next(/^bound/)), '10.77.0.10')
  t.deepEqual(await leaseKinds(store), ['10.77.0.10 leased'])
})

test.serial('a relay agent of another network is refused with an event', async (t) => {
  const { history, service } = await lan.serve(t)
  const far = await lan.addRelay(t, '10.88.0.1/24')
  const client = lan.udhcpc(t, far, '-n', '-t', '1')
  await client.next(/no lease, failing/)
  t.is(service.counts().answered, 0)
  const refused = (await history()).filter((line) => line.startsWith('dhcp-refused'))
  t.deepEqual(refused, ['dhcp-refused no pool for the network of relay agent 10.88.0.1'])
})

test.serial('leases survive `kill -9` of the server', async (t) => {
  const options: DhcpServerArguments = {
    storeFile: lan.newFile(),
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
  const client = lan.udhcpc(t, alice)
  const address = addressIn(await client.next(/^bound/))
  await stop(doomed, 'SIGKILL')
  await startServer()
  t.not(addressIn(await lan.udhcpc(t, bob).next(/^bound/)), address)
  client.child.kill('SIGUSR1')
  t.is(addressIn(await client.next(/^(renew|bound)/)), address)
})

for (const { mode, packets, ports } of [
  { mode: 'server', packets: 40_000, ports: [67] },
  { mode: 'proxy', packets: 60_000, ports: [67, 4011] },
] as const) {
  test.serial(`${packets} damaged packets leave ${mode} mode answering`, async (t) => {
    const { service, seen, history } = await lan.serve(t, { mode })
    await bob.run('ip', 'address', 'replace', '10.77.0.251/24', 'dev', 'eth0')
    // Not the MAC of the captures, whose damaged REQUESTs are a boot loop before long.
    const hardwareAddress = Uint8Array.of(0x52, 0x54, 0, 0xaa, 0, 1)
    const { payload } = await firmwarePacket('ovmf-pxe-then-ipxe-efi')
    const boot = { ...decodeDhcp(payload), hardwareAddress }
    const inform = { ...boot, clientIp: parseIpv4('10.77.0.251') }
    const options = new Map([...boot.options, [OPTION.messageType, uint8Bytes(MESSAGE_TYPE.inform)]])
    const question = encodeDhcp(mode === 'server' ? { ...inform, options } : boot)
    const flood: DhcpFloodArguments = {
      ...{ targetIp: SERVER, ports, packets },
      question: Buffer.from(question).toString('hex'),
    }
    const entry = new URL('../testing/dhcp-flood.ts', import.meta.url).pathname
    const child = start(t, bob, process.execPath, entry, JSON.stringify(flood))
    await child.next(/^answered after/, 100_000) // it gives up by itself when it gets no answer
    const counts = service.counts()
    t.is(counts.failed, 0)
    // The last ones to port 4011 may not have been read when the question to port 67 is answered.
    t.true(counts.received > packets * 0.99, JSON.stringify(counts))
    t.true(counts.broken > packets / 100, JSON.stringify(counts))
    t.true(seen.size < 4000, `${seen.size} made-up machines`)
    t.true((await history()).length < 7000)
    t.log(counts)
  })
}
