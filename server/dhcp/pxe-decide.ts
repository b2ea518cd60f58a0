// What a machine that asks for a network boot is to load next: a loader, its boot script, or nothing.

import type { Ipv4 } from '#lib/ipv4.ts'
import { macToPath } from '#lib/mac.ts'
import { loaderFor } from '#machine/loaders.ts'

import type { BootClient, Classified } from './classify.ts'

export interface BootContext {
  /** The server's own address on the network of the client. */
  readonly serverIp: Ipv4
  /** `http://10.77.0.1:8080`, no slash at the end. */
  readonly httpBaseUrl: string
}

/**
 * - `loader`: firmware, or an iPXE that cannot fetch its script, gets an iPXE of ours, by TFTP as `fileName` or from `url`
 * - `script`: iPXE fetches the machine's boot script
 * - `none`: nothing is offered; `event` names the event to append, where there is one
 */
export type BootDecision =
  | { readonly kind: 'loader'; readonly fileName: string; readonly url: string }
  | { readonly kind: 'script'; readonly url: string }
  | { readonly kind: 'none'; readonly reason: string; readonly event?: 'unknown-architecture' }

/** The chain goes by absolute URLs: next-server is whatever another DHCP server last said, a URL is not. */
export function decideBoot({ mac, boot }: Classified, context: BootContext): BootDecision {
  if (boot === undefined) return { kind: 'none', reason: 'it asks for no network boot' }
  if (mac === undefined)
    return { kind: 'none', reason: 'it has no Ethernet address, which its boot script goes by' }
  if (boot.ipxe?.speaksHttp) {
    return { kind: 'script', url: `${context.httpBaseUrl}/boot/${macToPath(mac)}.ipxe` }
  }
  const fileName = loaderFor(boot.firmware)
  if (fileName === undefined) return { kind: 'none', reason: noLoader(boot), event: 'unknown-architecture' }
  return { kind: 'loader', fileName, url: `${context.httpBaseUrl}/loaders/${fileName}` }
}

function noLoader({ firmware, architecture }: BootClient): string {
  if (architecture === undefined) return 'it does not say which architecture it is (option 93)'
  const name = firmware === 'unknown' ? '' : ` (${firmware})`
  return `there is no loader for architecture ${architecture}${name}`
}
