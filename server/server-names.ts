// What the server is reached by over HTTPS: the names and addresses that its certificate has to cover.

import { hostname, networkInterfaces } from 'node:os'

import type { ServerNames } from '#certs/server-certificate.ts'
import { ANY_IPV4, type Ipv4 } from '#lib/ipv4.ts'

/** RFC 1123 §2.1: what a certificate can hold; a host may be called otherwise. */
const LABELS = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*$/

const LOOPBACK = '127.0.0.1'

/** `mdnsHost` is what the server calls itself on the LAN, beside what the host is called. */
export function serverNames(listensOn: Ipv4, mdnsHost: string): ServerNames {
  const host = hostname().toLowerCase()
  const hosts = [host, `${host.split('.')[0]}.local`, mdnsHost, 'localhost']
  const addresses = listensOn === ANY_IPV4 ? allAddresses() : [listensOn]
  return {
    hosts: [...new Set(hosts.filter((name) => LABELS.test(name)))],
    addresses: [...new Set([...addresses, LOOPBACK])],
  }
}

function allAddresses(): readonly string[] {
  const all = Object.values(networkInterfaces()).flatMap((list) => list ?? [])
  return all.flatMap(({ family, address }) => (family === 'IPv4' ? [address] : []))
}
