// The kernel's own table of who is behind an address on the LAN.

import { readFile } from 'node:fs/promises'

import type { Ipv4 } from '#lib/ipv4.ts'
import { findMac, type Mac } from '#lib/mac.ts'

/**
 * The MAC that `ip` answers from, or undefined when the kernel has not talked to it lately. Behind a relay or router
 * it is that one's MAC, so use it for the history only, never for a decision.
 */
export async function findNeighbour(ip: Ipv4): Promise<Mac | undefined> {
  // proc_net(5): IP address, HW type, Flags, HW address, Mask, Device.
  const table = await readFile('/proc/net/arp', 'utf8').catch(() => '')
  const row = table.split('\n').find((line) => line.startsWith(`${ip} `))
  const mac = findMac(row?.split(/\s+/)[3] ?? '')
  return mac === '00:00:00:00:00:00' ? undefined : mac // an entry that nobody has answered yet
}
