// A LAN with the DHCP service on it, and the programs its tests run there: clients, other servers, relay agents.

import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import type { ExecutionContext } from 'ava'

import { createDhcpService, type DhcpService, type DhcpServiceOptions } from '#dhcp/service.ts'
import { systemClock } from '#lib/clock.ts'
import { parseIpv4, parseSubnet } from '#lib/ipv4.ts'
import { silentLog } from '#lib/log.ts'
import type { Mac } from '#lib/mac.ts'
import type { Event } from '#machine/event.ts'
import type { Sighting } from '#machine/ports.ts'
import { openUdp } from '#sockets/udp.ts'
import { openStore, type Store } from '#store/store.ts'
import { type DhcpPacket, decodeDhcp } from '#wire/dhcp4.ts'

import { readDhcpRequests } from './captured-dhcp.ts'
import { type Lan, type Lines, linesOf, makeLan } from './lan.ts'
import { enterOwnNetwork, type Neighbour } from './own-network.ts'

export const SERVER = parseIpv4('10.77.0.1')
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

export interface Running {
  readonly service: DhcpService
  readonly store: Store
  readonly seen: Map<Mac, Sighting>
  /** `kind message` of every event so far. */
  history(): Promise<readonly string[]>
}

export interface Started extends Lines {
  readonly child: ChildProcess
}

/** What it starts ends with the test that started it, at the latest. */
export class DhcpLan {
  readonly lan: Lan
  readonly #folder: string
  #files = 0

  private constructor(lan: Lan, folder: string) {
    this.lan = lan
    this.#folder = folder
  }

  /** Moves the calling thread into a network of its own; its `br0` is the LAN. */
  static async make(): Promise<DhcpLan> {
    await enterOwnNetwork()
    const folder = await mkdtemp(join(tmpdir(), 'kateskit-dhcp-'))
    const made = new DhcpLan(await makeLan('br0', `${SERVER}/24`), folder)
    await writeFile(made.#script, CLIENT_SCRIPT)
    await chmod(made.#script, 0o755)
    return made
  }

  async stop(): Promise<void> {
    this.lan.stop()
    await rm(this.#folder, { recursive: true, force: true })
  }

  /** A path no file has yet. */
  newFile(): string {
    return join(this.#folder, `file-${this.#files++}`)
  }

  get #script(): string {
    return join(this.#folder, 'client-script')
  }

  /** A service over a real store, stopped when the test ends. */
  async serve(t: ExecutionContext, overrides: Partial<DhcpServiceOptions> = {}): Promise<Running> {
    const store = await openStore({ file: this.newFile(), clock: systemClock, log: silentLog })
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
      unknownLeaseSeconds: 3600,
      keptPercent: 25,
      isKnown: () => false,
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
    return {
      service,
      store,
      seen,
      history: async () => (await store.events.list({ limit: 10_000 })).map(told),
    }
  }

  udhcpc(t: ExecutionContext, host: Neighbour, ...more: readonly string[]): Started {
    const args = ['-f', '-i', 'eth0', '-s', this.#script, '-t', '5', '-T', '1', ...more]
    return start(t, host, 'busybox', 'udhcpc', ...args)
  }

  /** dhclient with files of its own; each call starts it once more on the same leases. */
  async makeDhclient(t: ExecutionContext, host: Neighbour, { lease = '' } = {}) {
    const [conf, leases, pid] = [this.newFile(), this.newFile(), this.newFile()]
    await writeFile(conf, DHCLIENT_CONF)
    await writeFile(leases, lease)
    const args = ['-4', '-d', '-v', '-cf', conf, '-lf', leases, '-pf', pid, '-sf', this.#script]
    return (...more: readonly string[]) => start(t, host, 'dhclient', ...args, ...more, 'eth0')
  }

  /** The next dhclient that is bound finds its address in use. */
  async takeNextAddress(): Promise<void> {
    await writeFile(`${this.#script}.in-use`, '')
  }

  async startDnsmasq(t: ExecutionContext, host: Neighbour, ...args: readonly string[]): Promise<void> {
    const quiet = [
      '--conf-file=/dev/null',
      '--port=0',
      '--no-ping',
      '--user=root', // with the group: else it outlives us, see server/lab/router.ts
      '--group=root',
      '--pid-file=',
      '--log-facility=-',
    ]
    const leases = `--dhcp-leasefile=${this.newFile()}`
    const server = start(t, host, 'dnsmasq', '--keep-in-foreground', '--log-dhcp', ...quiet, leases, ...args)
    await server.next(/DHCP(, IP range|, proxy| relay)/)
  }

  /** A host on the LAN on which dnsmasq passes DHCP on, and the client behind it. */
  async addRelay(t: ExecutionContext, address: string): Promise<Neighbour> {
    const relay = await this.lan.addHost('10.77.0.5/24')
    const client = await this.lan.addHostBehind(relay, address)
    t.teardown(() => {
      for (const host of [client, relay]) host.stop()
    })
    await this.startDnsmasq(t, relay, `--dhcp-relay=${address.split('/')[0]},${SERVER}`)
    return client
  }
}

/** Starts a program on a host; killed when the test ends. */
export function start(
  t: ExecutionContext,
  host: Neighbour,
  command: string,
  ...args: readonly string[]
): Started {
  const child = host.start(command, ...args)
  t.teardown(() => stop(child))
  return Object.assign(linesOf(child), { child })
}

export async function stop(child: ChildProcess, signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const closed = once(child, 'close')
  child.kill(signal)
  await closed
}

/** The first packet that the capture's firmware sends. */
export async function firmwarePacket(capture: string) {
  const packet = (await readDhcpRequests()).find(({ name }) => name.startsWith(`${capture} `))
  if (packet === undefined) throw new Error(`No request in ${capture}`)
  return packet
}

/** Broadcasts one packet from a host and resolves with the server's reply. */
export async function say(host: Neighbour, payload: Uint8Array): Promise<DhcpPacket> {
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
export async function useBroadcasts(host: Neighbour): Promise<void> {
  await host.run('ip', 'route', 'replace', 'default', 'dev', 'eth0')
}
