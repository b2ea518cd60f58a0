// What can be known to be wrong before the server opens anything on a real network.

import { readFile } from 'node:fs/promises'
import { type NetworkInterfaceInfo, networkInterfaces } from 'node:os'

import type { Config } from '#config'
import { KitError } from '#lib/errors.ts'

/** CAP_NET_BIND_SERVICE and CAP_NET_RAW (capabilities(7)): ports below 1024, and sockets tied to an interface. */
const NEEDED_CAPABILITIES = (1n << 10n) | (1n << 13n)

type Interfaces = Readonly<Record<string, readonly NetworkInterfaceInfo[] | undefined>>

/** Throws KitError for the first thing that is wrong, with the command that helps. */
export async function checkServe(config: Config, { userId }: { readonly userId: number }): Promise<void> {
  checkInterface(config.values['dhcp/interface'], networkInterfaces())
  if (userId !== 0 && !hasCapabilities(await readFile('/proc/self/status', 'utf8'))) {
    throw new KitError('forbidden', 'Cannot open ports 67, 69 and 4011: not root', {
      fix: `sudo npm start -- --interface ${config.values['dhcp/interface']}`,
    })
  }
}

/** Exported for its tests. Nothing is ever answered on a network that nobody named. */
export function checkInterface(name: string | undefined, all: Interfaces): void {
  const there = listInterfaces(all)
  if (name === undefined) {
    throw new KitError('invalid-input', 'Cannot serve a network: no interface is set', {
      fix: `name one with --interface or in config/dhcp/interface; there are: ${there}`,
    })
  }
  if (all[name]?.some((address) => address.family === 'IPv4')) return
  throw new KitError('not-found', `Cannot serve ${name}: it is not there, is down, or has no IPv4 address`, {
    fix: `choose one of these: ${there}`,
  })
}

function listInterfaces(all: Interfaces): string {
  const lines = Object.entries(all).flatMap(([name, addresses]) => {
    const ipv4 = addresses?.find(({ family, internal }) => family === 'IPv4' && !internal)
    return ipv4 === undefined ? [] : [`${name} (${ipv4.cidr})`]
  })
  return lines.join(', ') || 'none with an IPv4 address'
}

/** Exported for its tests: reads the line `CapEff:` of /proc/self/status. */
export function hasCapabilities(status: string): boolean {
  const hex = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1]
  return hex !== undefined && (BigInt(`0x${hex}`) & NEEDED_CAPABILITIES) === NEEDED_CAPABILITIES
}
