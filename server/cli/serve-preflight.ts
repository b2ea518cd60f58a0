// What can be known to be wrong before the server opens anything on a real network.

import { readFile } from 'node:fs/promises'

import type { Config } from '#config'
import { KitError } from '#lib/errors.ts'

/** CAP_NET_BIND_SERVICE and CAP_NET_RAW (capabilities(7)): ports below 1024, and sockets tied to an interface. */
const NEEDED_CAPABILITIES = (1n << 10n) | (1n << 13n)

/** Throws KitError where this user may not open what a server opens. */
export async function checkServe(config: Config, { userId }: { readonly userId: number }): Promise<void> {
  if (userId !== 0 && !hasCapabilities(await readFile('/proc/self/status', 'utf8'))) {
    throw new KitError('forbidden', 'Cannot open ports 67, 69 and 4011: not root', {
      fix: `sudo npm start -- --interface ${config.values['dhcp/interface']}`,
    })
  }
}

/** Exported for its tests: reads the line `CapEff:` of /proc/self/status. */
export function hasCapabilities(status: string): boolean {
  const hex = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1]
  return hex !== undefined && (BigInt(`0x${hex}`) & NEEDED_CAPABILITIES) === NEEDED_CAPABILITIES
}
