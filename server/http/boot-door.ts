// `/boot/`: the boot script of a machine.

import { describeError, KitError } from '#lib/errors.ts'
import type { Log } from '#lib/log.ts'
import { findMac, isGroupMac, type Mac } from '#lib/mac.ts'
import type { Firmware } from '#machine/machine.ts'
import type { BootOffer, MachineDesk, Sighting } from '#machine/ports.ts'

import type { BootScripts } from './boot-scripts.ts'
import { clientAddress, type Exchange, requireMethod, sendText } from './exchange.ts'

export interface BootDoor {
  readonly desk: MachineDesk
  readonly scripts: BootScripts
  readonly log: Log
  /** A machine has its script in full. */
  readonly onScriptSent?: (mac: Mac) => void
}

/** iPXE's `buildarch` under EFI. A BIOS build may say i386 or x86_64; the platform settles that. */
const EFI_ARCHES: Readonly<Record<string, Firmware>> = {
  i386: 'uefi-ia32',
  x86_64: 'uefi-x64',
  arm64: 'uefi-arm64',
}
const NO_UUID = /^[0-]+$/
const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

/** Answers with a script even when the server is in trouble: iPXE would end at a dead prompt, so it waits and asks again. */
export async function serveBoot(exchange: Exchange, name: string, door: BootDoor): Promise<void> {
  requireMethod(exchange, 'GET')
  const { response } = exchange
  if (name === 'autoexec.ipxe') {
    sendText(response, door.scripts.autoexec())
    return
  }
  const mac = name.endsWith('.ipxe') ? findMac(name.slice(0, -'.ipxe'.length)) : undefined
  if (mac === undefined || isGroupMac(mac)) {
    throw new KitError(
      'invalid-input',
      "Cannot give out a boot script: the path is not a machine's MAC and .ipxe",
    )
  }
  response.once('finish', () => door.onScriptSent?.(mac))
  sendText(response, await scriptFor(mac, exchange, door))
}

async function scriptFor(mac: Mac, exchange: Exchange, { desk, scripts, log }: BootDoor): Promise<string> {
  try {
    const offer = await offerFor(mac, exchange, desk)
    // By another of its cards it boots as the machine that it is.
    return scripts.forOffer(offer, offer.boot.mac)
  } catch (error) {
    log.error({ err: error, mac }, `no boot script: ${describeError(error)}`)
    return scripts.hold(error instanceof KitError ? error.message : 'the server had an internal error', mac)
  }
}

/** A wish that nobody knows is none: an error would leave the machine at a dead prompt. */
function offerFor(mac: Mac, exchange: Exchange, desk: MachineDesk): Promise<BootOffer> {
  const sighting = readSighting(exchange)
  const want = exchange.url.searchParams.get('want')
  const isWish = want === 'powerwash' || want === 'recover'
  return isWish ? desk.offerBoot(mac, sighting, want) : desk.offerBoot(mac, sighting)
}

function readSighting({ request, url }: Exchange): Sighting {
  const uuid = url.searchParams.get('uuid')?.toLowerCase() ?? ''
  const firmware = readFirmware(url.searchParams)
  const address = clientAddress(request)
  return {
    ...(firmware !== undefined && { firmware }),
    ...(UUID.test(uuid) && !NO_UUID.test(uuid) && { uuid }),
    ...(address !== undefined && { address }),
  }
}

function readFirmware(query: URLSearchParams): Firmware | undefined {
  const platform = query.get('platform')
  if (platform === 'pcbios') return 'bios'
  return platform === 'efi' ? (EFI_ARCHES[query.get('buildarch') ?? ''] ?? 'unknown') : undefined
}
