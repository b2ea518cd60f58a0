// The boot scripts machines get, one per boot plan, from the templates in boot/ipxe/.

import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

import { type Clock, systemClock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import type { Mac } from '#lib/mac.ts'
import { macToPath } from '#lib/mac.ts'
import {
  type BootPlan,
  hostnameOf,
  type ImagePlan,
  kernelArguments,
  type ServerWords,
} from '#machine/boot-plan.ts'
import type { BootOffer } from '#machine/ports.ts'

import { ScriptTemplate, toScriptText } from './script-template.ts'

export interface BootScripts {
  /** Throws KitError `unavailable` or `invalid-input` when the plan cannot be put into a script; `hold` says so to the machine. */
  forOffer(offer: BootOffer, mac: Mac): string
  /** Never throws. */
  hold(reason: string, mac: Mac): string
  /** For iPXE that knows nothing but the server's address: TFTP's `autoexec.ipxe`. */
  autoexec(): string
}

/** What a boot into an image cannot do without. */
const NEEDED = ['vmlinuz', 'initrd.img', 'root.squashfs']

/** How long the menu of an installed machine waits for a key before it goes on to the disk. */
const MENU_SECONDS = 5

/** The holes that each template may have. */
const NAMES = {
  live: ['hostname', 'image', 'ca', 'kernel-url', 'initrd-url', 'arguments', 'script-url'],
  'local-disk': ['reason'],
  installed: ['reason', 'menu-seconds', 'script-url'],
  hold: ['reason', 'script-url'],
  autoexec: ['base-url'],
} as const

export interface BootScriptOptions extends ServerWords {
  readonly clock?: Clock
}

/** Reads and checks every template in `folder`. Throws KitError for a template it cannot use. */
export async function loadBootScripts(
  folder: string,
  { clock = systemClock, ...server }: BootScriptOptions,
): Promise<BootScripts> {
  const [live, localDisk, installed, hold, autoexec] = await Promise.all([
    load(folder, 'live'),
    load(folder, 'local-disk'),
    load(folder, 'installed'),
    load(folder, 'hold'),
    load(folder, 'autoexec'),
  ])
  const { baseUrl, caFingerprint } = server
  const scriptUrl = (mac: Mac) => `${baseUrl}/boot/${macToPath(mac)}.ipxe`

  // All ways to start an image are one script: the kernel's arguments make the difference.
  const forImage = (plan: ImagePlan, id: string, mac: Mac) =>
    live.render({
      ...startWords(plan, mac, baseUrl),
      ca: caFingerprint,
      arguments: kernelArguments(plan, { ...server, id, nowMs: clock.nowMs() }),
      'script-url': scriptUrl(mac),
    })

  const forDisk = ({ reason, menu }: Extract<BootPlan, { kind: 'local-disk' }>, mac: Mac) => {
    const words = { reason: toScriptText(reason) }
    if (menu !== true) return localDisk.render(words)
    return installed.render({ ...words, 'menu-seconds': `${MENU_SECONDS}`, 'script-url': scriptUrl(mac) })
  }

  const forHold = (reason: string, mac: Mac) =>
    hold.render({ reason: toScriptText(reason), 'script-url': scriptUrl(mac) })

  return {
    forOffer({ plan, boot }, mac) {
      switch (plan.kind) {
        case 'live':
        case 'install':
        case 'powerwash':
        case 'powerwash-all':
          return forImage(plan, boot.id, mac)
        case 'local-disk':
          return forDisk(plan, mac)
        case 'hold':
          return forHold(plan.reason, mac)
        default:
          return plan satisfies never
      }
    },
    hold: forHold,
    autoexec: () => autoexec.render({ 'base-url': baseUrl }),
  }
}

/** Throws KitError `unavailable` for an image that is not all there. */
function startWords({ image, profile }: ImagePlan, mac: Mac, baseUrl: string) {
  const { version, files } = image
  const missing = NEEDED.filter((name) => !files.has(name))
  if (missing.length > 0) {
    throw new KitError('unavailable', `Cannot start image ${version}: it has no ${missing.join(', ')}`)
  }
  // The MAC in the query lets the server see which machine has its kernel; it means nothing else.
  const url = (name: string) => `${baseUrl}/images/${version}/${name}?mac=${macToPath(mac)}`
  return {
    hostname: hostnameOf(mac, profile),
    image: version,
    'kernel-url': url('vmlinuz'),
    'initrd-url': url('initrd.img'),
  }
}

async function load<Kind extends keyof typeof NAMES>(
  folder: string,
  kind: Kind,
): Promise<ScriptTemplate<(typeof NAMES)[Kind][number]>> {
  const file = join(folder, `${kind}.ipxe`)
  return new ScriptTemplate(await readFile(file, 'utf8'), { file, names: NAMES[kind] })
}
