// Which machines a lab has: names, MACs and kinds, from a list such as `uefi,bios`.

import { KitError } from '#lib/errors.ts'
import { type Mac, parseMac } from '#lib/mac.ts'

import type { LabFirmware } from './qemu.ts'

interface Named {
  readonly name: string
  readonly mac: Mac
  readonly uuid: string
}

/** A virtual one. */
export interface LabMachine extends Named {
  readonly firmware: LabFirmware
}

/** One that is a container (container.ts). */
export interface LabContainer extends Named {
  readonly firmware: 'container'
}

export type AnyLabMachine = LabMachine | LabContainer

type Kind = AnyLabMachine['firmware']

export const DEFAULT_MACHINES = 'uefi,bios'

const MAX_MACHINES = 8

/** Where each kind's numbers begin; profiles/machines/ of this repository has the first machine of each kind, and the second container. */
const FIRST_NUMBER: Readonly<Record<Kind, number>> = { uefi: 0x01, bios: 0x02, container: 0x41 }

/**
 * The n-th machine of a kind always has the same name, MAC and UUID: `uefi` is 02:4b:69:74:00:01, `bios`
 * 02:4b:69:74:00:02, `uefi-2` 02:4b:69:74:00:03, `container` 02:4b:69:74:00:41 and so on. Throws KitError `invalid-input`.
 */
export function parseLabMachines(list: string): readonly AnyLabMachine[] {
  const words = list.split(',').map((word) => word.trim())
  const wrong = words.find((word) => !(word in FIRST_NUMBER))
  if (wrong !== undefined || words.length > MAX_MACHINES) {
    throw new KitError('invalid-input', `Cannot make the machines ${JSON.stringify(list)}`, {
      fix: `name up to ${MAX_MACHINES} times uefi, bios or container, as in --machines uefi,bios`,
    })
  }
  const count: Record<Kind, number> = { uefi: 0, bios: 0, container: 0 }
  return (words as Kind[]).map((firmware) => {
    count[firmware] += 1
    return labMachine(firmware, count[firmware])
  })
}

function labMachine(firmware: Kind, count: number): AnyLabMachine {
  const number = FIRST_NUMBER[firmware] + 2 * (count - 1)
  const mac = parseMac(`02:4b:69:74:00:${number.toString(16).padStart(2, '0')}`)
  return {
    name: count === 1 ? firmware : `${firmware}-${count}`,
    mac,
    firmware,
    uuid: `6b617465-734b-4974-8000-${mac.replaceAll(':', '')}`,
  }
}
