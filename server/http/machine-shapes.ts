// The bodies that machines send (docs/ports-and-endpoints.md, "For machines").

import { z } from 'zod'

import { findIpv4, parseIpv4 } from '#lib/ipv4.ts'
import { CHECK_IN_PHASES } from '#machine/lifecycle.ts'
import { CHECKS, SLOT_NAMES, SLOT_STATES } from '#machine/machine.ts'

import { cutText, cutTexts, logText, messageText, shortText } from './machine-texts.ts'

/** More drift than this says nothing more. */
const DRIFT_MAX = 100

export const BOOT_ID = z.string().regex(/^[\x21-\x7e]{1,64}$/, 'a boot id is at most 64 printable characters')

export const STEP_REPORT = z.object({
  boot: BOOT_ID,
  step: z.string().regex(/^[a-z0-9][a-z0-9-]{0,63}$/, 'a step is lower-case letters, digits and dashes'),
  status: z.enum(['started', 'done', 'failed']),
  seconds: z.number().min(0).max(1e6).exactOptional(),
  message: messageText.exactOptional(),
  log: logText.exactOptional(),
})

const SLOT = z.object({
  state: z.enum(SLOT_STATES),
  image: shortText.exactOptional(),
  // As free as the image's: a damaged record on the disk must not cost the check-in that tells of it.
  bundle: shortText.exactOptional(),
  tries: z.int().min(0).max(1000).exactOptional(),
  reason: cutText.exactOptional(),
})

export const CHECK_IN = z.object({
  boot: BOOT_ID,
  phase: z.enum(CHECK_IN_PHASES),
  image: shortText.exactOptional(),
  bundle: z
    .string()
    .regex(/^[0-9a-f]{64}$/, 'a bundle is named by 64 hex digits')
    .exactOptional(),
  address: z
    .string()
    .refine((text) => findIpv4(text) !== undefined, 'an IPv4 address')
    .transform(parseIpv4)
    .exactOptional(),
  rebootReasons: z.array(shortText).max(64).exactOptional(),
  slot: z.enum(SLOT_NAMES).exactOptional(),
  slots: z.object({ a: SLOT, b: SLOT }).exactOptional(),
  checks: z.enum(CHECKS).exactOptional(),
  reason: cutText.exactOptional(),
  drift: cutTexts(DRIFT_MAX).exactOptional(),
})

export const NAMED_BOOT = z.object({ slot: z.enum(SLOT_NAMES) })

/** sysfs pads what a disk says of itself with blanks, and a disk that says nothing has an empty text there. */
const diskText = shortText.transform((text) => text.trim())

const DEVICE_NAME = z.string().regex(/^[\w!.-]{1,64}$/, 'a device is named as in /sys/block')

const DISK = z
  .object({
    name: DEVICE_NAME,
    sizeBytes: z.int().min(0),
    removable: z.boolean(),
    transport: diskText.transform((text) => text || 'unknown'),
    serial: diskText.exactOptional(),
    wwn: diskText.exactOptional(),
    model: diskText.exactOptional(),
    table: diskText.exactOptional(),
    contents: z
      .array(
        z
          .object({ where: shortText, label: diskText.exactOptional(), type: diskText.exactOptional() })
          .transform(withoutEmpty),
      )
      .max(256),
  })
  .transform(withoutEmpty)

export const DISK_REPORT = z.object({
  boot: BOOT_ID,
  firmware: z.enum(['uefi', 'bios']),
  disks: z.array(DISK).max(128),
})

/** Only optional texts can be empty here. */
function withoutEmpty<Shape extends object>(value: Shape): Shape {
  return Object.fromEntries(Object.entries(value).filter(([, each]) => each !== '')) as Shape
}
