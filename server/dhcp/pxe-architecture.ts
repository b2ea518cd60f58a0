// What the numbers of option 93 mean: RFC 4578 §2.1 and the IANA registry "Processor Architecture Types" that grew out of it.

import type { Firmware } from '#machine/machine.ts'

/** How firmware fetches the first program. */
export type Transport = 'tftp' | 'http'

interface Architecture {
  readonly firmware: Firmware
  readonly transport: Transport
}

/**
 * Those there can be a loader for. Numbers that are not here (Itanium, RISC-V, 32-bit ARM, LoongArch, U-Boot …) are the
 * firmware `unknown`.
 */
const ARCHITECTURES: Readonly<Record<number, Architecture>> = {
  0: { firmware: 'bios', transport: 'tftp' },
  6: { firmware: 'uefi-ia32', transport: 'tftp' },
  7: { firmware: 'uefi-x64', transport: 'tftp' }, // seen on OVMF 2022.11 and in iPXE 1.0.0 and 1.21.1
  // RFC 4578 as printed has 7 for EFI byte code and 9 for x64; the registry has them the other way round, and so does the
  // RFC since its erratum. Firmware from before sends 9 and means x64; nobody ships byte code loaders.
  9: { firmware: 'uefi-x64', transport: 'tftp' },
  11: { firmware: 'uefi-arm64', transport: 'tftp' },
  15: { firmware: 'uefi-ia32', transport: 'http' },
  16: { firmware: 'uefi-x64', transport: 'http' }, // seen on OVMF 2022.11
  17: { firmware: 'uefi-x64', transport: 'http' }, // 9 with HTTP: the same mix-up
  19: { firmware: 'uefi-arm64', transport: 'http' },
  20: { firmware: 'bios', transport: 'http' },
}

export function findArchitecture(number: number): Architecture | undefined {
  return ARCHITECTURES[number]
}
