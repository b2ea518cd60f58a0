// IPv4 addresses and subnets as values.

declare const brand: unique symbol

/** Dotted decimal without leading zeros: `10.77.0.1`. */
export type Ipv4 = string & { readonly [brand]: 'Ipv4' }

export interface Subnet {
  /** The network's own address, host bits zero. */
  readonly network: Ipv4
  /** 0–32. */
  readonly prefixBits: number
}

export const ANY_IPV4 = '0.0.0.0' as Ipv4
export const BROADCAST_IPV4 = '255.255.255.255' as Ipv4

const OCTET = '(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)'
const SHAPE = new RegExp(`^${OCTET}(?:\\.${OCTET}){3}$`)

export function findIpv4(text: string): Ipv4 | undefined {
  return SHAPE.test(text) ? (text as Ipv4) : undefined
}

/** Throws RangeError. */
export function parseIpv4(text: string): Ipv4 {
  const ip = findIpv4(text)
  if (ip === undefined) throw new RangeError(`Cannot read an IPv4 address: ${JSON.stringify(text)}`)
  return ip
}

/** The address as an unsigned 32-bit number, for ranges and comparisons. */
export function ipv4ToNumber(ip: Ipv4): number {
  return ip.split('.').reduce((sum, octet) => sum * 256 + Number(octet), 0)
}

/** Throws RangeError outside 0…2³²−1. */
export function ipv4FromNumber(value: number): Ipv4 {
  if (!Number.isInteger(value) || value < 0 || value > 0xffffffff) {
    throw new RangeError(`Cannot make an IPv4 address: ${value}`)
  }
  return [24, 16, 8, 0].map((shift) => (value >>> shift) & 0xff).join('.') as Ipv4
}

/** From four bytes. Throws RangeError for another length. */
export function ipv4FromBytes(bytes: Uint8Array): Ipv4 {
  if (bytes.length !== 4) throw new RangeError(`Cannot read an IPv4 address: ${bytes.length} bytes`)
  return bytes.join('.') as Ipv4
}

export function ipv4ToBytes(ip: Ipv4): Uint8Array {
  return Uint8Array.from(ip.split('.'), Number)
}

/** `10.77.0.9` in a /24 is in `{network: '10.77.0.0', prefixBits: 24}`. */
export function subnetOf(ip: Ipv4, prefixBits: number): Subnet {
  return { network: ipv4FromNumber((ipv4ToNumber(ip) & maskNumber(prefixBits)) >>> 0), prefixBits }
}

/** Accepts `10.77.0.0/24`; host bits may be set. Throws RangeError. */
export function parseSubnet(text: string): Subnet {
  const [address = '', bits = '', ...rest] = text.split('/')
  const ip = findIpv4(address)
  if (ip === undefined || rest.length > 0 || !/^(?:3[0-2]|[12]?\d)$/.test(bits)) {
    throw new RangeError(`Cannot read a subnet: ${JSON.stringify(text)}`)
  }
  return subnetOf(ip, Number(bits))
}

/** `10.77.0.0/24`. */
export function formatSubnet({ network, prefixBits }: Subnet): string {
  return `${network}/${prefixBits}`
}

export function subnetMask(subnet: Subnet): Ipv4 {
  return ipv4FromNumber(maskNumber(subnet.prefixBits))
}

export function subnetBroadcast(subnet: Subnet): Ipv4 {
  return ipv4FromNumber((ipv4ToNumber(subnet.network) | (~maskNumber(subnet.prefixBits) >>> 0)) >>> 0)
}

export function subnetHas(subnet: Subnet, ip: Ipv4): boolean {
  return subnetOf(ip, subnet.prefixBits).network === subnet.network
}

function maskNumber(prefixBits: number): number {
  return prefixBits === 0 ? 0 : (0xffffffff << (32 - prefixBits)) >>> 0
}
