// The options a lease carries: what is configured, in the order the client asks for it (option 55).

import { uint32Bytes } from '#lib/bytes.ts'
import { type Ipv4, ipv4ToBytes, type Subnet, subnetBroadcast, subnetMask } from '#lib/ipv4.ts'
import { OPTION } from '#wire/dhcp4-codes.ts'
import { type DhcpOptions, ipListBytes, textBytes } from '#wire/dhcp4-values.ts'

import { renewalTimes } from './lease-times.ts'

export interface NetworkParameters {
  readonly subnet: Subnet
  readonly router?: Ipv4
  readonly dns: readonly Ipv4[]
  readonly domain?: string
}

/** Sent whether asked for or not: a client without them has no network. */
const ALWAYS: readonly number[] = [OPTION.subnetMask, OPTION.router, OPTION.dnsServer]

/** A client without option 55 gets all there is; one with it what it asks for, in its order (RFC 2131 §4.3.1). */
export function networkOptions(
  request: DhcpOptions,
  network: NetworkParameters,
  hostname: string | undefined,
): DhcpOptions {
  const available = availableOptions(network, hostname)
  const asked = request.get(OPTION.parameterList)
  const codes = asked === undefined ? available.keys() : new Set([...asked, ...ALWAYS])
  const options = new Map<number, Uint8Array>()
  for (const code of codes) {
    const value = available.get(code)
    if (value !== undefined) options.set(code, value)
  }
  return options
}

/** Lease time and T1, T2. They MUST NOT be in the answer to INFORM (RFC 2131 §4.3.5). */
export function leaseTimeOptions(leaseSeconds: number): DhcpOptions {
  const { renewSeconds, rebindSeconds } = renewalTimes(leaseSeconds)
  return new Map([
    [OPTION.leaseSeconds, uint32Bytes(leaseSeconds)],
    [OPTION.renewSeconds, uint32Bytes(renewSeconds)],
    [OPTION.rebindSeconds, uint32Bytes(rebindSeconds)],
  ])
}

function availableOptions(network: NetworkParameters, hostname: string | undefined): Map<number, Uint8Array> {
  const options = new Map<number, Uint8Array>()
  options.set(OPTION.subnetMask, ipv4ToBytes(subnetMask(network.subnet))) // before the router (RFC 2132 §3.3)
  if (network.router !== undefined) options.set(OPTION.router, ipv4ToBytes(network.router))
  if (network.dns.length > 0) options.set(OPTION.dnsServer, ipListBytes(network.dns))
  if (hostname !== undefined) options.set(OPTION.hostName, textBytes(hostname))
  if (network.domain !== undefined) options.set(OPTION.domainName, textBytes(network.domain))
  options.set(OPTION.broadcastAddress, ipv4ToBytes(subnetBroadcast(network.subnet)))
  return options
}
