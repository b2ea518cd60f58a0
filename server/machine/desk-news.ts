// What the history hears of what machines are handed.

import type { Mac } from '#lib/mac.ts'

import { type BootPlan, isImagePlan } from './boot-plan.ts'
import type { NewEvent } from './event.ts'
import type { Boot } from './machine.ts'

export function scriptSent(boot: Boot, plan: BootPlan): NewEvent {
  const what = isImagePlan(plan) ? `, image ${plan.image.version}` : `: ${plan.reason}`
  const message = `boot plan ${plan.kind}${what}`
  return { kind: 'boot-script-sent', mac: boot.mac, message, data: { plan: plan.kind, boot: boot.id } }
}

export function diskRefused(mac: Mac, lines: string): NewEvent {
  const [first = ''] = lines.split('\n', 1)
  return { kind: 'disk-refused', mac, message: first, data: { lines } }
}
