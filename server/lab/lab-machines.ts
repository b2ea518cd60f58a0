// Which machines a lab has: names, MACs and firmware, from a list such as `uefi,bios`.

import { KitError } from '#lib/errors.ts'
import { type Mac, parseMac } from '#lib/mac.ts'

import type { LabFirmware } from './qemu.ts'

export interface LabMachine {
  readonly name: string
  readonly mac: Mac
  readonly firmware: LabFirmware
  readonly uuid: string
}

export const DEFAULT_MACHINES = 'uefi,bios'

const MAX_MACHINES = 8

/** The fifth byte of the MAC; the profiles/ of this repository give roles to the first machine of each kind. */
const FIRMWARE_BYTE: Readonly<Record<LabFirmware, string>> = { uefi: '01', bios: '02' }

/**
 * The n-th machine of a kind always has the same name, MAC and UUID: `uefi` is 52:54:00:77:01:01, a second one
 * `uefi-2` 52:54:00:77:01:02, the first `bios` 52:54:00:77:02:01. Throws KitError `invalid-input`.
 */
export function parseLabMachines(list: string): readonly LabMachine[] {
  const words = list.split(',').map((word) => word.trim())
  const wrong = words.find((word) => !(word in FIRMWARE_BYTE))
  if (wrong !== undefined || words.length > MAX_MACHINES) {
    throw new KitError('invalid-input', `Cannot make the machines ${JSON.stringify(list)}`, {
      fix: `name up to ${MAX_MACHINES} times uefi or bios, as in --machines uefi,bios`,
    })
  }
  const count: Record<LabFirmware, number> = { uefi: 0, bios: 0 }
  return (words as LabFirmware[]).map((firmware) => {
    count[firmware] += 1
    return labMachine(firmware, count[firmware])
  })
}

function labMachine(firmware: LabFirmware, number: number): LabMachine {
  const mac = parseMac(`52:54:00:77:${FIRMWARE_BYTE[firmware]}:${String(number).padStart(2, '0')}`)
  return {
    name: number === 1 ? firmware : `${firmware}-${number}`,
    mac,
    firmware,
    uuid: `6b617465-734b-4974-8000-${mac.replaceAll(':', '')}`,
  }
}
