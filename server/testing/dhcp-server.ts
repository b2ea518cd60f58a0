// A DHCP server in server mode as a process of its own, over a real store; the test of `kill -9` kills it.

import { createDhcpService } from '#dhcp/service.ts'
import { systemClock } from '#lib/clock.ts'
import { parseIpv4, parseSubnet } from '#lib/ipv4.ts'
import { silentLog } from '#lib/log.ts'
import { openUdp } from '#sockets/udp.ts'
import { openStore } from '#store/store.ts'

/** The one argument, as JSON. */
export interface DhcpServerArguments {
  readonly storeFile: string
  readonly networkInterface: string
  readonly serverIp: string
  readonly subnet: string
  readonly pool: { readonly first: string; readonly last: string }
  readonly leaseSeconds: number
}

const asked: DhcpServerArguments = JSON.parse(process.argv[2] ?? '')
const serverIp = parseIpv4(asked.serverIp)
const store = await openStore({ file: asked.storeFile, clock: systemClock, log: silentLog })

await createDhcpService({
  mode: 'server',
  networkInterface: asked.networkInterface,
  serverIp,
  subnet: parseSubnet(asked.subnet),
  pool: { first: parseIpv4(asked.pool.first), last: parseIpv4(asked.pool.last) },
  leaseSeconds: asked.leaseSeconds,
  unknownLeaseSeconds: asked.leaseSeconds,
  keptPercent: 0,
  isKnown: () => false,
  dns: [],
  reservationFor: () => undefined,
  reservedTo: () => undefined,
  httpBaseUrl: `http://${serverIp}:8080`,
  ...{ leases: store.leases, events: store.events, sightings: { seen: async () => {} } },
  ...{ openUdp, clock: systemClock, log: silentLog, probeMs: 20 },
}).start()
process.stdout.write('ready\n')
