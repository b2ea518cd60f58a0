// Network boot, one packet at a time: what the client may load, the loop breaker, and what the history says of it.

import type { Clock } from '#lib/clock.ts'
import type { Mac } from '#lib/mac.ts'

import type { Arrival } from './arrival.ts'
import { LoopBreaker } from './loop-breaker.ts'
import type { Notices } from './notices.ts'
import { type BootContext, type BootDecision, decideBoot } from './pxe-decide.ts'

export class BootDesk {
  readonly #context: BootContext
  readonly #notices: Notices
  readonly #breaker: LoopBreaker

  constructor(context: BootContext, options: { readonly notices: Notices; readonly clock: Clock }) {
    this.#context = context
    this.#notices = options.notices
    this.#breaker = new LoopBreaker(options.clock)
  }

  /** Called once per packet. Kind `none` for a machine whose boot goes in circles. */
  async decide({ classified, mac, type, packet }: Arrival): Promise<BootDecision> {
    const decision = decideBoot(classified, this.#context)
    if (decision.kind === 'none' && decision.event !== undefined) {
      await this.#notices.tell(
        { kind: decision.event, mac, message: `${mac}: ${decision.reason}` },
        `arch ${mac}`,
      )
    }
    if (decision.kind !== 'loader') return decision
    const gate = this.#breaker.check(mac, { messageType: type, xid: packet.xid })
    if (gate === 'open') return decision
    const reason = `${mac} asks for the loader again and again; it is left alone for a while`
    if (gate === 'tripped')
      await this.#notices.tell({ kind: 'boot-loop', mac, message: reason }, `loop ${mac}`)
    return { kind: 'none', reason }
  }

  /** The boot of this client class was offered. */
  async offered({ classified: { boot }, mac }: Arrival): Promise<void> {
    if (boot === undefined) return
    const loadedBy = boot.ipxe === undefined ? 'firmware' : 'ipxe'
    const data = { firmware: boot.firmware, transport: boot.transport, loadedBy }
    const clientClass = Object.values(data).join(' ')
    const message = `offered a network boot to ${mac} (${clientClass})`
    await this.#notices.tell({ kind: 'dhcp-offered', mac, message, data }, offerKey(mac), clientClass)
  }

  /** The machine has come through: the next offer is another boot, and no loop. */
  scriptFetched(mac: Mac): void {
    this.#breaker.scriptFetched(mac)
    this.#notices.forget(offerKey(mac))
  }
}

function offerKey(mac: Mac): string {
  return `offered ${mac}`
}
