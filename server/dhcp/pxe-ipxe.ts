// Tells iPXE from the firmware that loads it, and what that iPXE can do.

import { DecodeError, latin1 } from '#lib/bytes.ts'
import { OPTION } from '#wire/dhcp4-codes.ts'
import { decodeEncapsulated } from '#wire/dhcp4-options.ts'
import type { DhcpOptions } from '#wire/dhcp4-values.ts'

export interface IpxeClient {
  /**
   * Whether it can fetch its script by itself. True for every iPXE seen: QEMU's option ROM of 2019 too, which is why
   * that goes straight to the script (a kernel over its virtio driver takes 0.8 s, over `undionly.kpxe` 13 s).
   */
  readonly speaksHttp: boolean
}

/** The options inside 175 (iPXE's src/include/ipxe/dhcp.h). */
const IPXE_OPTION = {
  firstFeature: 0x10, // 0x10–0x7f: one per feature, the value is its version
  featureHttp: 0x13,
  lastFeature: 0x7f,
  version: 0xeb,
} as const

const NAMES = ['iPXE', 'gPXE']

/**
 * iPXE sends its name as user class (77) and its features in 175; a build may set another user class, and either is
 * enough. One that does not say it speaks HTTP is given an iPXE that does: too old, or built without.
 */
export function findIpxe(options: DhcpOptions): IpxeClient | undefined {
  const features = findFeatures(options.get(OPTION.ipxe))
  if (
    features === undefined &&
    !userClasses(options.get(OPTION.userClass)).some((name) => NAMES.includes(name))
  ) {
    return undefined
  }
  return { speaksHttp: features?.has(IPXE_OPTION.featureHttp) === true }
}

/** Undefined when the option is not iPXE's: 175 was never assigned, others have used it for their own. */
function findFeatures(option: Uint8Array | undefined): ReadonlySet<number> | undefined {
  if (option === undefined) return undefined
  try {
    const codes = [...decodeEncapsulated(option).keys()]
    const features = codes.filter(
      (code) => code >= IPXE_OPTION.firstFeature && code <= IPXE_OPTION.lastFeature,
    )
    return features.length > 0 || codes.includes(IPXE_OPTION.version) ? new Set(features) : undefined
  } catch (error) {
    if (error instanceof DecodeError) return undefined
    throw error
  }
}

/**
 * The names in option 77: a list of length and name by RFC 3004 §4, the bare name as iPXE sends it (seen on 1.0.0 of 2019
 * and 1.21.1). A bare name read as a list runs past the end, so both readings can be tried.
 */
function userClasses(option: Uint8Array | undefined): readonly string[] {
  if (option === undefined) return []
  const names = [latin1(option)]
  for (let offset = 0; offset < option.length; ) {
    const end = offset + 1 + (option[offset] ?? 0)
    names.push(latin1(option.subarray(offset + 1, end)))
    offset = end
  }
  return names
}
