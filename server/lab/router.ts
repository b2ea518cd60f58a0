// dnsmasq in the part of a home router: it gives addresses and knows nothing of network boot.

import { join } from 'node:path'

import type { Child } from '#lib/child.ts'
import type { Netns } from './netns.ts'

export interface RouterOptions {
  readonly netns: Netns
  readonly interfaceName: string
  readonly address: string
  readonly poolFirst: string
  readonly poolLast: string
  /** For its leases and its log. */
  readonly folder: string
}

/**
 * The caller stops it; it dies with this process in any case. For that it stays root, user and group: who changes
 * either loses the parent-death signal (prctl(2)). Needs the Debian package dnsmasq-base.
 */
export function startRouter(options: RouterOptions): Child {
  return options.netns.start('dnsmasq', [
    ...['--keep-in-foreground', '--conf-file=/dev/null', '--port=0', '--bind-interfaces'],
    `--interface=${options.interfaceName}`,
    `--dhcp-range=${options.poolFirst},${options.poolLast},255.255.255.0,1h`,
    `--dhcp-option=option:router,${options.address}`,
    ...['--dhcp-authoritative', '--log-dhcp', `--log-facility=${join(options.folder, 'router.log')}`],
    ...[`--dhcp-leasefile=${join(options.folder, 'router.leases')}`, '--pid-file='],
    ...['--user=root', '--group=root'],
  ])
}
