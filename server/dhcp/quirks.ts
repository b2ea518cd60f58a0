// The table of what firmware does differently from the standards, and how a reply is shaped for it.

import type { BootClient } from './classify.ts'
import type { Transport } from './pxe-architecture.ts'

export type DhcpMode = 'proxy' | 'server'

/** How the boot part of a reply looks. The values of STANDARD_FORM are what PXE 2.1 and RFC 4578 ask for. */
export interface ReplyForm {
  /** Option 60 says `PXEClient` or `HTTPClient` back. */
  readonly echoClass: boolean
  /** Option 43 says: take the file named here, look for no other boot server (PXE 2.1 §2.2.3, PXE_DISCOVERY_CONTROL bit 3). */
  readonly discoveryControl: boolean
  /** A NUL behind the name in option 67, against RFC 2132 §2. */
  readonly terminateName: boolean
  /** siaddr is set even where the boot file is a URL. */
  readonly nextServerForUrl: boolean
  /** Option 175 tells iPXE not to wait for the offer of a boot server. */
  readonly noProxyWait: boolean
}

export interface Quirk {
  readonly name: string
  /** All that are given must hold; `uefi` and `ipxe` as booleans. */
  readonly match: {
    readonly mode?: DhcpMode
    readonly ipxe?: boolean
    readonly uefi?: boolean
    readonly transport?: Transport
  }
  readonly form: Partial<ReplyForm>
  readonly why: string
  /** How we know: "seen on", "[src]" for read in its source, "reported" with where, or "untested". */
  readonly evidence: string
}

const STANDARD_FORM: ReplyForm = {
  echoClass: true,
  discoveryControl: true,
  terminateName: false,
  nextServerForUrl: false,
  noProxyWait: false,
}

/** Applied from the top; a later one that matches overrides an earlier one. */
export const QUIRKS: readonly Quirk[] = [
  {
    name: 'name read past its end',
    match: { ipxe: false },
    form: { terminateName: true },
    why: 'Old Intel and 3Com ROMs take the END behind option 67 for a letter (`name\\xff`). EDK II writes a NUL behind it, over the code of the next option.',
    evidence:
      '[src] EDK II PxeBcParseDhcp4Packet, HttpBootParseDhcp4Packet; both forms seen to work on OVMF 2022.11',
  },
  {
    name: 'proxy offer with discovery control is lost',
    match: { mode: 'proxy', ipxe: false, uefi: true, transport: 'tftp' },
    form: { discoveryControl: false },
    why: 'EDK II before 2017 counts such an offer and never stores it. Without option 43 it asks port 4011 instead, which every UEFI does.',
    evidence:
      '[src] EDK II PxeBcCacheDhcp4Offer; reported for Dell T130 and T430 in tianocore/edk2#6944; OVMF 2022.11 is seen to boot either way',
  },
  {
    name: 'HTTP boot knows no option 43',
    match: { ipxe: false, transport: 'http' },
    form: { discoveryControl: false },
    why: 'Discovery is a matter of PXE; UEFI 2.10 §24.7 (HTTP boot) takes the URL out of the offer.',
    evidence: 'seen on OVMF 2022.11 in proxy mode, [src] EDK II HttpBootParseDhcp4Packet',
  },
  {
    name: 'iPXE wants a next server beside the URL',
    match: { mode: 'proxy', ipxe: true },
    form: { nextServerForUrl: true },
    why: 'With siaddr zero it takes the offer for one without a boot file and asks port 4011, and does not believe that answer either.',
    evidence:
      '[src] iPXE dhcp_has_pxeopts; with it seen on 1.0.0 (2019) and 1.21.1 to boot from the offer after one DISCOVER',
  },
  {
    name: 'iPXE waits for a boot server',
    match: { mode: 'server', ipxe: true },
    form: { noProxyWait: true, echoClass: false, discoveryControl: false },
    why: 'It goes on collecting offers for two seconds and a second DISCOVER unless the one with the address says that there is no other.',
    evidence:
      '[src] iPXE dhcp_discovery_rx; two DISCOVERs in every capture of 1.0.0 (2019) and 1.21.1 without it, one with it',
  },
]

/** The form of a reply to this client. */
export function replyForm(client: BootClient, mode: DhcpMode): ReplyForm {
  const forms = QUIRKS.filter((quirk) => matches(quirk.match, client, mode)).map((quirk) => quirk.form)
  return Object.assign({ ...STANDARD_FORM }, ...forms)
}

function matches(match: Quirk['match'], client: BootClient, mode: DhcpMode): boolean {
  const facts = {
    mode,
    ipxe: client.ipxe !== undefined,
    uefi: client.firmware.startsWith('uefi-'),
    transport: client.transport,
  }
  return (
    (match.mode ?? facts.mode) === facts.mode &&
    (match.ipxe ?? facts.ipxe) === facts.ipxe &&
    (match.uefi ?? facts.uefi) === facts.uefi &&
    (match.transport ?? facts.transport) === facts.transport
  )
}
