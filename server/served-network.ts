// Which network the server serves: the one that somebody named, and no other.

import { KitError } from '#lib/errors.ts'
import type { Ipv4 } from '#lib/ipv4.ts'
import { listInterfaces, type NetworkInterface } from '#sockets/network-interface.ts'

import { type Config, ConfigError } from './config.ts'
import { checkNetwork } from './config-checks.ts'

/** `ip` is `dhcp/ip` where that is set. Throws KitError, or ConfigError for settings that do not fit the network. */
export async function findServedNetwork(config: Config): Promise<NetworkInterface> {
  const network = chooseNetwork(config.values, await listInterfaces())
  const { name, subnet, ip } = network
  const problems = checkNetwork(config, { networkInterface: name, subnet, ip })
  if (problems.length > 0) throw new ConfigError(problems)
  return network
}

/** The pure part. */
export function chooseNetwork(
  values: { readonly 'dhcp/interface': string | undefined; readonly 'dhcp/ip': Ipv4 | undefined },
  interfaces: readonly NetworkInterface[],
): NetworkInterface {
  const name = values['dhcp/interface']
  const there =
    interfaces.map(({ name, ip, subnet }) => `${name} (${ip}/${subnet.prefixBits})`).join(', ') ||
    'none with an IPv4 address'
  if (name === undefined) {
    throw new KitError('invalid-input', 'Cannot serve a network: no interface is set', {
      fix: `name one with --interface or in config/dhcp/interface; there are: ${there}`,
    })
  }
  const found = interfaces.find((candidate) => candidate.name === name)
  if (found === undefined) {
    throw new KitError('not-found', `Cannot serve ${name}: it is not there, or has no IPv4 address`, {
      fix: `choose one of these: ${there}`,
    })
  }
  return { ...found, ip: values['dhcp/ip'] ?? found.ip }
}
