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

/** Where each kind's numbers begin; profiles/machines/ of this repository has the first machine of each kind. */
const FIRST_NUMBER: Readonly<Record<LabFirmware, number>> = { uefi: 1, bios: 2 }

/**
 * The n-th machine of a kind always has the same name, MAC and UUID: `uefi` is 02:4b:69:74:00:01, `bios`
 * 02:4b:69:74:00:02, `uefi-2` 02:4b:69:74:00:03 and so on. Throws KitError `invalid-input`.
 */
export function parseLabMachines(list: string): readonly LabMachine[] {
  const words = list.split(',').map((word) => word.trim())
  const wrong = words.find((word) => !(word in FIRST_NUMBER))
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

function labMachine(firmware: LabFirmware, count: number): LabMachine {
  const number = FIRST_NUMBER[firmware] + 2 * (count - 1)
  const mac = parseMac(`02:4b:69:74:00:${number.toString(16).padStart(2, '0')}`)
  return {
    name: count === 1 ? firmware : `${firmware}-${count}`,
    mac,
    firmware,
    uuid: `6b617465-734b-4974-8000-${mac.replaceAll(':', '')}`,
  }
}
