// Proxy mode: another server gives the addresses; clients that want to boot hear from us what to load.

import { MESSAGE_TYPE } from '#wire/dhcp4-codes.ts'

import type { BootDesk } from './boot-desk.ts'
import type { Notices } from './notices.ts'
import type { BootContext } from './pxe-decide.ts'
import { proxyReply } from './pxe-proxy.ts'
import type { Responder } from './responder.ts'

export function createProxyResponder(options: {
  readonly boots: BootDesk
  readonly notices: Notices
  readonly boot: BootContext
}): Responder {
  const { boots, notices, boot: context } = options
  return async (arrival) => {
    const { packet, classified, mac, type, port, from } = arrival
    const { boot, uuid } = classified
    if (boot === undefined) return undefined
    const decision = await boots.decide(arrival)
    const reply = proxyReply(packet, classified, { decision, context, port, from })
    const afterwards = async () => {
      await notices.saw(mac, { firmware: boot.firmware, ...(uuid && { uuid }) })
      if (reply.kind === 'reply' && type === MESSAGE_TYPE.discover) await boots.offered(arrival)
    }
    if (reply.kind === 'reply') return { packet: reply.packet, to: reply.to, afterwards }
    await afterwards()
    return undefined
  }
}
