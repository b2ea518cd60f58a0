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
  findings.push(...checkHttps(values))
  return findings
}

/** Where the certificate for `https/name` comes from: two files, or ACME. */
function checkHttps(values: Partial<ConfigValues>): readonly Finding[] {
  const findings: Finding[] = []
  const add = (key: ConfigKey, message: string) => findings.push({ key, message })
  const { 'http/port': plain, 'https/port': port, 'https/name': name, 'https/key': key } = values
  const { 'https/certificate': certificate, 'https/acme-directory': acme } = values
  if (port !== undefined && port !== 0 && port === plain)
    add('https/port', `Cannot serve HTTPS on ${port}: http/port is the same`)
  if (certificate !== undefined && key === undefined && 'https/key' in values)
    add('https/key', `Cannot use https/certificate ${certificate}: https/key is not set`)
  if (key !== undefined && certificate === undefined && 'https/certificate' in values)
    add('https/certificate', `Cannot use https/key ${key}: https/certificate is not set`)
  if (certificate !== undefined && acme !== undefined)
    add('https/acme-directory', `Cannot use ACME beside https/certificate ${certificate}: unset one of them`)
  if ((certificate ?? key ?? acme) !== undefined && name === undefined && 'https/name' in values)
    add('https/name', 'Cannot use another certificate without https/name: the host name that it is for')
  if (
    name !== undefined &&
    certificate === undefined &&
    acme === undefined &&
    'https/acme-directory' in values
  )
    add('https/name', `Cannot answer to ${name}: neither https/certificate nor https/acme-directory is set`)
  return findings
}

export interface ServedNetwork {
  readonly networkInterface: string
  readonly subnet: Subnet
  /** The server's own address in it. */
  readonly ip: Ipv4
}

/** What serving needs of the settings, and server mode of the network, once the interface is known. */
export function checkNetwork(config: Config, network: ServedNetwork): readonly ConfigProblem[] {
  const { values } = config
  const findings = values['dhcp/mode'] === 'server' ? checkServerMode(values, network) : []
  for (const key of ['http/port', 'https/port'] as const) {
    if (values[key] !== 0) continue
    const message =
      'Cannot serve on any free port: boot scripts have to name it; only the lab finds one by itself'
    findings.push({ key, message })
  }
  return findings.map(({ key, message }) => {
    const source = config.explain().find((line) => line.key === key)?.source ?? key
    return { source, key, message }
  })
}

function checkServerMode(values: ConfigValues, { subnet, ip, networkInterface }: ServedNetwork): Finding[] {
  const name = `${subnet.network}/${subnet.prefixBits} of ${networkInterface}`
  const findings: Finding[] = []
  const add = (key: ConfigKey, message: string) => findings.push({ key, message })

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
  return findings
}
