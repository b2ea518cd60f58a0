// What the kernel says of one network interface.

import { networkInterfaces } from 'node:os'

import { findIpv4, type Ipv4, type Subnet, subnetOf } from '#lib/ipv4.ts'
import { findMac, type Mac } from '#lib/mac.ts'

export interface NetworkInterface {
  /** Its first IPv4 address. */
  readonly ip: Ipv4
  readonly subnet: Subnet
  readonly mac: Mac
}

/** Undefined when there is no such interface, or it is down or has no IPv4 address. Read anew at each call. */
export function findInterface(name: string): NetworkInterface | undefined {
  const entry = networkInterfaces()[name]?.find(({ family }) => family === 'IPv4')
  const ip = entry && findIpv4(entry.address)
  const mac = entry && findMac(entry.mac)
  const prefixBits = Number(entry?.cidr?.split('/')[1] ?? Number.NaN)
  if (ip === undefined || mac === undefined || Number.isNaN(prefixBits)) return undefined
  return { ip, mac, subnet: subnetOf(ip, prefixBits) }
}
