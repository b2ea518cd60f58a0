// Every setting of the server: one table from which loading, `kateskit config explain` and docs/configuration.md come.

import { CLUSTER_CONFIG } from './config-cluster.ts'
import { ADDRESS, type ConfigRule, DOMAIN, PATH, rule, SWITCH } from './config-rule.ts'
import { integer, ipv4List, ipv4Pool, matching, oneOf, optional } from './config-shapes.ts'

const PORT = { expected: 'a port number (0 takes any free one)', shape: integer(0, 65_535) }

export const CONFIG_TABLE = {
  'dhcp/interface': rule({
    meaning: 'the network interface to serve; without one nothing on a real network is ever answered',
    expected: 'the name of a network interface such as eth0 (at most 15 characters)',
    shape: optional(matching(/^(?!\.{1,2}$)[^\s/:]{1,15}$/)), // the kernel's dev_valid_name()
    fallback: '',
  }),
  'dhcp/mode': rule({
    meaning: 'proxy: the router gives addresses, we add the boot information; server: we give addresses too',
    expected: 'proxy, server or off',
    shape: oneOf('proxy', 'server', 'off'),
    fallback: 'proxy',
  }),
  'dhcp/ip': rule({
    meaning: "the server's own address on the interface",
    ...ADDRESS,
    fallbackText: "the interface's first IPv4 address",
  }),
  'dhcp/pool': rule({
    meaning: 'the addresses to lease, both ends included; needed when dhcp/mode is server',
    expected: 'two IPv4 addresses, the smaller first: 10.77.0.100-10.77.0.199',
    shape: optional(ipv4Pool),
    fallback: '',
  }),
  'dhcp/lease-seconds': rule({
    meaning: 'how long an address is leased',
    expected: 'a number of seconds from 60 to 31536000',
    shape: integer(60, 31_536_000),
    fallback: '3600',
  }),
  'dhcp/unknown-lease-seconds': rule({
    meaning: 'the same for a machine without a folder in the profile tree that has never proved who it is',
    expected: 'a number of seconds from 60 to 31536000',
    shape: integer(60, 31_536_000),
    fallback: '600',
  }),
  'dhcp/kept-percent': rule({
    meaning: 'how much of the pool, its end, only known machines are given',
    expected: 'a percentage from 0 to 90',
    shape: integer(0, 90),
    fallback: '25',
  }),
  'dhcp/router': rule({ meaning: 'the default gateway that clients are given', ...ADDRESS }),
  'dhcp/dns': rule({
    meaning: 'the name servers that clients are given, in order',
    expected: 'IPv4 addresses separated by blanks or newlines',
    shape: ipv4List,
    fallback: '',
  }),
  'dhcp/domain': rule({
    meaning: 'the domain name that clients are given',
    expected: 'a domain name such as home.arpa',
    shape: optional(matching(DOMAIN)),
    fallback: '',
  }),
  'tftp/port': rule({ meaning: 'the UDP port of TFTP', ...PORT, fallback: '69' }),
  'tftp/single-port': rule({
    meaning: 'answer every transfer from that one port, for networks with NAT in between',
    ...SWITCH,
    fallback: 'false',
  }),
  'http/port': rule({
    meaning: 'the TCP port of HTTP',
    ...PORT,
    expected: 'a port number (0 takes any free one, in the lab only)',
    fallback: '8080',
  }),
  'http/address': rule({
    meaning: 'the address HTTP listens on; 0.0.0.0 is all of them',
    ...ADDRESS,
    fallbackText: "the server's address on the interface",
  }),
  'http/control-socket': rule({
    meaning: 'the unix socket of the command line; who may open the file is an admin',
    ...PATH,
    fallback: 'var/run/kateskit.sock',
  }),
  'http/extra-socket': rule({
    meaning: 'one more unix socket, treated like TCP: the API asks for a token on it',
    ...PATH,
    expected: 'a path, or empty',
    shape: optional(PATH.shape),
    fallback: '',
  }),
  'http/connections-per-address': rule({
    meaning:
      'how many connections one address may have to HTTP, and as many to HTTPS: more for many machines behind NAT',
    expected: 'a number from 8 to 1536',
    shape: integer(8, 1_536),
    fallback: '256',
  }),
  'fleetlock/enabled': rule({
    meaning: 'let other tools take the lock of the updates by FleetLock, which asks for no token',
    ...SWITCH,
    fallback: 'false',
  }),
  'https/port': rule({
    meaning: 'the TCP port of HTTPS, on the same address as HTTP',
    ...PORT,
    expected: 'a port number (0 takes any free one, in the lab only)',
    fallback: '8443',
  }),
  'https/name': rule({
    meaning:
      'the host name that people open, which another certificate than the one of our own CA answers to',
    expected: 'a host name such as kit.example.org, or empty',
    shape: optional(matching(DOMAIN)),
    fallback: '',
  }),
  'https/certificate': rule({
    meaning: 'the certificate for that name, with those that signed it after it',
    ...PATH,
    expected: 'the path of a PEM file, or empty',
    shape: optional(PATH.shape),
    fallback: '',
  }),
  'https/key': rule({
    meaning: 'the key of https/certificate',
    ...PATH,
    expected: 'the path of a PEM file, or empty',
    shape: optional(PATH.shape),
    fallback: '',
  }),
  'https/acme-directory': rule({
    meaning:
      'where to get a certificate for https/name by ACME; setting it accepts the terms of that authority',
    expected: 'a URL (https://), or empty',
    shape: optional(matching(/^https:\/\/[^\s]+$/)),
    fallback: '',
  }),
  'https/acme-email': rule({
    meaning: 'whom that authority may write to',
    expected: 'an e-mail address, or empty',
    shape: optional(matching(/^[^\s@,;]+@[^\s@,;]+$/)),
    fallback: '',
  }),
  'mdns/enabled': rule({ meaning: 'announce the server by multicast DNS', ...SWITCH, fallback: 'true' }),
  'mdns/name': rule({
    meaning: 'the name it is announced by',
    expected: 'a name of at most 63 characters on one line', // RFC 6763 §4.1.1
    shape: matching(/^[^\p{Cc}]{1,63}$/u),
    fallback: (host) => host.hostname.slice(0, 63),
    fallbackText: 'the host name',
  }),
  'profiles/directory': rule({ meaning: 'the profile tree', ...PATH, fallback: 'profiles' }),
  'images/directory': rule({
    meaning: 'where the images of this server are kept',
    ...PATH,
    fallback: 'var/images',
  }),
  'images/import': rule({
    meaning:
      "a built image's folder, or a folder of such folders: the newest is imported at start when it is not kept yet",
    ...PATH,
    expected: 'a path, or empty for none',
    shape: optional(PATH.shape),
    fallback: (host) => `${host.cacheDirectory}/kateskit/images`,
    fallbackText:
      'what `npm start` has built, else `$XDG_CACHE_HOME/kateskit/images`, else `~/.cache/kateskit/images`',
  }),
  'images/keep': rule({
    meaning:
      'how many of the images that nobody uses are kept, the newest; an older one is removed a day after it came',
    expected: 'a number from 0 to 1000',
    shape: integer(0, 1000),
    fallback: '5',
  }),
  'keys/directory': rule({
    meaning:
      "where the server's keys lie, made at the first start: for images, certificates and secret files",
    ...PATH,
    fallback: 'certs',
  }),
  'identity/ek-list': rule({
    meaning: 'a file that lists TPMs whose machines need no approval by a person',
    ...PATH,
    expected: 'a path, or empty for none',
    shape: optional(PATH.shape),
    fallback: '',
  }),
  'identity/ek-cas': rule({
    meaning: 'a folder with CA certificates of makers whose TPMs need no approval by a person',
    ...PATH,
    expected: 'a path, or empty for none',
    shape: optional(PATH.shape),
    fallback: '',
  }),
  'state/directory': rule({ meaning: 'where the database lies', ...PATH, fallback: 'var/state' }),
  'bundles/directory': rule({ meaning: 'where overlay bundles lie', ...PATH, fallback: 'var/bundles' }),
  ...CLUSTER_CONFIG,
  'log/level': rule({
    meaning: 'the least weighty messages that are written',
    expected: 'debug, info, warn or error',
    shape: oneOf('debug', 'info', 'warn', 'error'),
    fallback: 'info',
    isLive: true,
  }),
  'log/format': rule({
    meaning: 'lines for people, or one JSON object a line',
    expected: 'pretty or json',
    shape: oneOf('pretty', 'json'),
    fallback: 'pretty',
  }),
  'image/mirror': rule({
    meaning: 'the Debian archive, or a directory with a copy of it, that images are built from',
    expected: 'a URL (http:// or https://) or an absolute path',
    shape: optional(matching(/^(?:https?:\/\/[^\s]+|\/[^\0]*)$/)),
    fallback: '',
    fallbackText: "Debian's own archive",
  }),
  'image/kernel': rule({
    meaning:
      "the kernel package in the image: Debian's cloud kernel is smaller and drives virtual machines only",
    expected: 'the name of a Debian package such as linux-image-amd64',
    shape: optional(matching(/^[a-z0-9][a-z0-9+.-]+$/)), // Debian policy §5.6.7
    fallback: '',
    fallbackText: "the image recipe's own choice",
  }),
} as const

export type ConfigKey = keyof typeof CONFIG_TABLE

export type ConfigValues = {
  readonly [Key in ConfigKey]: (typeof CONFIG_TABLE)[Key] extends ConfigRule<infer Value> ? Value : never
}

export const CONFIG_KEYS = Object.keys(CONFIG_TABLE) as readonly ConfigKey[]

export function findConfigKey(text: string): ConfigKey | undefined {
  return CONFIG_KEYS.find((key) => key === text)
}

/** `dhcp/lease-seconds` → `KATESKIT_DHCP_LEASE_SECONDS` */
export function variableOf(key: ConfigKey): string {
  return `KATESKIT_${key.toUpperCase().replace(/[/-]/g, '_')}`
}
