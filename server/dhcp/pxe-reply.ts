// The boot part of a DHCP reply: which fields and options tell a client what to load.

import { ANY_IPV4, type Ipv4 } from '#lib/ipv4.ts'
import { type DhcpPacket, FILE_BYTES } from '#wire/dhcp4.ts'
import { OPTION } from '#wire/dhcp4-codes.ts'
import { concat, encodeEncapsulated } from '#wire/dhcp4-options.ts'
import { type DhcpOptions, textBytes, uint8Bytes } from '#wire/dhcp4-values.ts'

import type { BootClient, Classified } from './classify.ts'
import type { BootContext, BootDecision } from './pxe-decide.ts'
import { type DhcpMode, type ReplyForm, replyForm } from './quirks.ts'

/** What to merge into a reply. */
interface BootFields {
  readonly nextServerIp: Ipv4
  readonly serverName: string
  readonly bootFile: string
  readonly options: DhcpOptions
}

/** A decision to offer something, and what the offer is made with. */
export interface Boot {
  readonly decision: Exclude<BootDecision, { kind: 'none' }>
  readonly context: BootContext
}

export interface LeaseBoot {
  readonly classified: Classified
  readonly decision: BootDecision
  readonly context: BootContext
}

/** PXE_DISCOVERY_CONTROL (PXE 2.1 table 2-1): no multicast, no broadcast, no list; the boot file of this reply is it. */
const DISCOVERY_CONTROL = { code: 6, useBootFile: 8 } as const
/** "no-pxedhcp" inside iPXE's option 175. */
const IPXE_NO_PXEDHCP = 0xb0

/**
 * Server mode: the lease's OFFER or ACK with what `request` is to boot. The same reply when that is nothing, or when it
 * is no network boot.
 */
export function withBoot(
  reply: DhcpPacket,
  request: DhcpPacket,
  { classified, decision, context }: LeaseBoot,
): DhcpPacket {
  if (decision.kind === 'none' || classified.boot === undefined) return reply
  const fields = bootFields(request, classified.boot, { mode: 'server', decision, context })
  return { ...reply, ...fields, options: new Map([...reply.options, ...fields.options]) }
}

export function bootFields(
  request: DhcpPacket,
  client: BootClient,
  { mode, decision, context }: Boot & { readonly mode: DhcpMode },
): BootFields {
  const form = replyForm(client, mode)
  const byTftp = decision.kind === 'loader' && client.transport === 'tftp'
  const name = bootName(client, { decision, context })
  return {
    nextServerIp: byTftp || form.nextServerForUrl ? context.serverIp : ANY_IPV4,
    serverName: byTftp ? context.serverIp : '',
    // Some look only into the field, some only into option 67, and option 67 has room for any URL.
    bootFile: name.length < FILE_BYTES ? name : '',
    options: new Map([
      ...pxeOptions(request, client, form),
      ...(byTftp ? [[OPTION.tftpServerName, textBytes(context.serverIp)] as const] : []),
      [OPTION.bootFileName, concat(textBytes(name), new Uint8Array(form.terminateName ? 1 : 0))],
    ]),
  }
}

/** Only firmware takes its file from the next server; iPXE that is too old for HTTP still reads URLs. */
function bootName(client: BootClient, { decision, context }: Boot): string {
  if (decision.kind === 'script' || client.transport === 'http') return decision.url
  return client.ipxe === undefined ? decision.fileName : `tftp://${context.serverIp}/${decision.fileName}`
}

function pxeOptions(
  request: DhcpPacket,
  client: BootClient,
  form: ReplyForm,
): readonly (readonly [number, Uint8Array])[] {
  const options: (readonly [number, Uint8Array])[] = []
  if (form.echoClass) {
    const vendorClass = client.transport === 'http' && client.ipxe === undefined ? 'HTTPClient' : 'PXEClient'
    options.push([OPTION.vendorClass, textBytes(vendorClass)])
  }
  // "The server MUST return it" (PXE 2.1 §2.2.2); only in a length that can be one, as it is the client's own text.
  const machineId = request.options.get(OPTION.machineId)
  if (machineId !== undefined && machineId.length <= 17) options.push([OPTION.machineId, machineId])
  if (form.discoveryControl) {
    const control = new Map([[DISCOVERY_CONTROL.code, uint8Bytes(DISCOVERY_CONTROL.useBootFile)]])
    options.push([OPTION.vendorSpecific, encodeEncapsulated(control, { end: true })])
  }
  if (form.noProxyWait) {
    options.push([OPTION.ipxe, encodeEncapsulated(new Map([[IPXE_NO_PXEDHCP, uint8Bytes(1)]]))])
  }
  return options
}
