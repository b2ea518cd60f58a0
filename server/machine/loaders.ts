// The network boot programs the server hands out, and which firmware gets which. The only names TFTP and /loaders/ know.

import type { Firmware } from './machine.ts'

/** By the name on the wire, the file in the image (Debian's ipxe package). */
export const LOADERS: Readonly<Record<string, string>> = {
  'snponly.efi': 'ipxe/snponly.efi',
  'ipxe.efi': 'ipxe/ipxe.efi',
  'snponly-arm64.efi': 'ipxe/snponly-arm64.efi',
  'undionly.kpxe': 'ipxe/undionly.kpxe',
}

const BY_FIRMWARE: Readonly<Record<Firmware, string | undefined>> = {
  bios: 'undionly.kpxe',
  'uefi-ia32': undefined, // Debian builds no 32-bit UEFI iPXE
  'uefi-x64': 'snponly.efi',
  'uefi-arm64': 'snponly-arm64.efi',
  unknown: undefined,
}

export function loaderFor(firmware: Firmware): string | undefined {
  return BY_FIRMWARE[firmware]
}
