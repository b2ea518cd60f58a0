// Server settings that are right by themselves and wrong together, or wrong for the network they meet.

import { type Ipv4, ipv4ToNumber, type Subnet, subnetBroadcast, subnetHas } from '#lib/ipv4.ts'

import type { Config } from './config.ts'
import type { ConfigProblem } from './config-sources.ts'
import type { ConfigKey, ConfigValues } from './config-table.ts'

/** A problem that belongs to a key; the caller knows where the key's value came from. */
export interface Finding {
  readonly key: ConfigKey
  readonly message: string
}

/** Everything that can be known before an interface is opened. Values that could not be read are absent. */
export function checkTogether(values: Partial<ConfigValues>): readonly Finding[] {
  const findings: Finding[] = []
  if (values['dhcp/mode'] === 'server' && 'dhcp/pool' in values && values['dhcp/pool'] === undefined) {
    findings.push({
      key: 'dhcp/pool',
      message:
        'Cannot lease addresses: dhcp/mode is server and dhcp/pool is not set, such as 10.77.0.100-10.77.0.199',
    })
  }
  return findings
}

export interface ServedNetwork {
  readonly networkInterface: string
  readonly subnet: Subnet
  /** The server's own address in it. */
  readonly ip: Ipv4
}

/** What server mode needs of the network, once the interface is known. Empty in the other modes. */
export function checkNetwork(config: Config, network: ServedNetwork): readonly ConfigProblem[] {
  const { values } = config
  if (values['dhcp/mode'] !== 'server') return []
  const { subnet, ip, networkInterface } = network
  const name = `${subnet.network}/${subnet.prefixBits} of ${networkInterface}`
  const problems: ConfigProblem[] = []
  const add = (key: ConfigKey, message: string) => {
    const source = config.explain().find((line) => line.key === key)?.source ?? key
    problems.push({ source, key, message })
  }

  const pool = values['dhcp/pool']
  if (pool !== undefined) {
    const text = `${pool.first}-${pool.last}`
    const holds = (address: Ipv4) =>
      ipv4ToNumber(pool.first) <= ipv4ToNumber(address) && ipv4ToNumber(address) <= ipv4ToNumber(pool.last)
    if (!subnetHas(subnet, pool.first) || !subnetHas(subnet, pool.last)) {
      add('dhcp/pool', `Cannot lease ${text}: it is not inside ${name}`)
    } else if (subnet.prefixBits < 31 && (holds(subnet.network) || holds(subnetBroadcast(subnet)))) {
      add('dhcp/pool', `Cannot lease ${text}: it holds the network's own or broadcast address of ${name}`)
    }
    if (holds(ip)) add('dhcp/pool', `Cannot lease ${text}: it holds the server's own address ${ip}`)
  }
  const router = values['dhcp/router']
  if (router !== undefined && !subnetHas(subnet, router)) {
    add('dhcp/router', `Cannot give clients the router ${router}: it is not inside ${name}`)
  }
  return problems
}
