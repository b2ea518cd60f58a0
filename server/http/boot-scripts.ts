// The boot scripts machines get, one per boot plan, from the templates in boot/ipxe/.

import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

import { KitError } from '#lib/errors.ts'
import type { Mac } from '#lib/mac.ts'
import { macToPath } from '#lib/mac.ts'
import { type BootPlan, hostnameOf, liveKernelArguments } from '#machine/boot-plan.ts'
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

/** What a live boot cannot do without. */
const NEEDED = ['vmlinuz', 'initrd.img', 'root.squashfs']

const NAMES = {
  live: ['hostname', 'image', 'kernel-url', 'initrd-url', 'arguments', 'script-url'],
  'local-disk': ['reason'],
  hold: ['reason', 'script-url'],
  autoexec: ['base-url'],
} as const

/** Reads and checks every template in `folder`. `baseUrl` has no slash at its end. Throws KitError for a template it cannot use. */
export async function loadBootScripts(
  folder: string,
  { baseUrl }: { baseUrl: string },
): Promise<BootScripts> {
  const [live, localDisk, hold, autoexec] = await Promise.all([
    load(folder, 'live'),
    load(folder, 'local-disk'),
    load(folder, 'hold'),
    load(folder, 'autoexec'),
  ])
  const scriptUrl = (mac: Mac) => `${baseUrl}/boot/${macToPath(mac)}.ipxe`

  const forLive = (plan: Extract<BootPlan, { kind: 'live' }>, bootId: string, mac: Mac) => {
    const { version, files } = plan.image
    const missing = NEEDED.filter((name) => !files.has(name))
    if (missing.length > 0) {
      throw new KitError('unavailable', `Cannot start image ${version}: it has no ${missing.join(', ')}`)
    }
    // The MAC in the query lets the server see which machine has its kernel; it means nothing else.
    const url = (name: string) => `${baseUrl}/images/${version}/${name}?mac=${macToPath(mac)}`
    return live.render({
      hostname: hostnameOf(mac, plan.profile),
      image: version,
      'kernel-url': url('vmlinuz'),
      'initrd-url': url('initrd.img'),
      arguments: liveKernelArguments(plan, { id: bootId, baseUrl }),
      'script-url': scriptUrl(mac),
    })
  }

  const forHold = (reason: string, mac: Mac) =>
    hold.render({ reason: toScriptText(reason), 'script-url': scriptUrl(mac) })

  return {
    forOffer({ plan, boot }, mac) {
      switch (plan.kind) {
        case 'live':
          return forLive(plan, boot.id, mac)
        case 'local-disk':
          return localDisk.render({ reason: toScriptText(plan.reason) })
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

async function load<Kind extends keyof typeof NAMES>(
  folder: string,
  kind: Kind,
): Promise<ScriptTemplate<(typeof NAMES)[Kind][number]>> {
  const file = join(folder, `${kind}.ipxe`)
  return new ScriptTemplate(await readFile(file, 'utf8'), { file, names: NAMES[kind] })
}
