// What the kernel says of the network interfaces of this machine.

import { findIpv4, type Ipv4, type Subnet, subnetOf } from '#lib/ipv4.ts'
import { findMac, type Mac } from '#lib/mac.ts'
import { commandOutput } from '#lib/process.ts'

export interface NetworkInterface {
  readonly name: string
  /** Its first IPv4 address. */
  readonly ip: Ipv4
  readonly subnet: Subnet
  readonly mac: Mac
}

interface IpLink {
  readonly ifname: string
  readonly address?: string
  readonly addr_info: readonly {
    readonly family: string
    readonly local: string
    readonly prefixlen: number
  }[]
}

/**
 * The interfaces with an IPv4 address, loopback left out. From ip(8), because Node's os.networkInterfaces() leaves
 * out those without a carrier (libuv wants IFF_RUNNING): a server may start before its switch does.
 */
export async function listInterfaces(): Promise<readonly NetworkInterface[]> {
  const links = JSON.parse(await commandOutput('ip', ['-json', 'address', 'show'])) as readonly IpLink[]
  return links.flatMap(({ ifname, address, addr_info }) => {
    const first = addr_info.find(({ family }) => family === 'inet')
    const ip = findIpv4(first?.local ?? '')
    const mac = findMac(address ?? '')
    if (first === undefined || ip === undefined || mac === undefined || ifname === 'lo') return []
    return [{ name: ifname, ip, mac, subnet: subnetOf(ip, first.prefixlen) }]
  })
}

/** Undefined when there is no such interface, or it has no IPv4 address. Read anew at each call. */
export async function findInterface(name: string): Promise<NetworkInterface | undefined> {
  return (await listInterfaces()).find((candidate) => candidate.name === name)
}
