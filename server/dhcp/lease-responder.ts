// Server mode: addresses for everybody, and the boot fields with them for clients that want to boot.

import type { Ipv4 } from '#lib/ipv4.ts'
import type { Mac } from '#lib/mac.ts'
import { MESSAGE_TYPE } from '#wire/dhcp4-codes.ts'

import type { Arrival } from './arrival.ts'
import type { BootDesk } from './boot-desk.ts'
import { findLeaseAsk } from './lease-ask.ts'
import type { LeaseDesk } from './lease-desk.ts'
import { leaseNotice } from './lease-notices.ts'
import type { LeaseAsk, LeaseDecision } from './lease-types.ts'
import type { Notices } from './notices.ts'
import type { BootContext } from './pxe-decide.ts'
import { withBoot } from './pxe-reply.ts'
import { leaseReply, replyTarget } from './reply.ts'
import type { NetworkParameters } from './reply-options.ts'
import type { Answer, Responder } from './responder.ts'

export interface LeaseResponderOptions {
  readonly leases: LeaseDesk
  readonly boots: BootDesk
  readonly notices: Notices
  readonly network: NetworkParameters
  readonly boot: BootContext
  readonly hostnameFor: (mac: Mac) => string | undefined
}

export function createLeaseResponder(options: LeaseResponderOptions): Responder {
  return async (arrival) => {
    const ask = findLeaseAsk(arrival.packet, arrival)
    if (ask === undefined) return undefined
    const decision = await options.leases.settle(ask)
    const answer = await answerTo(arrival, decision, options)
    const afterwards = () => tell(arrival, { ask, decision, isBoot: answer?.isBoot ?? false }, options)
    if (answer !== undefined) return { ...answer.answer, afterwards }
    await afterwards()
    return undefined
  }
}

async function answerTo(
  arrival: Arrival,
  decision: LeaseDecision,
  options: LeaseResponderOptions,
): Promise<{ answer: Answer; isBoot: boolean } | undefined> {
  const { packet, classified, mac, type } = arrival
  const { serverIp } = options.boot
  const lease = leaseReply(packet, decision, {
    ...options.network,
    serverIp,
    hostname: options.hostnameFor(mac),
  })
  if (lease === undefined) return undefined
  const to = replyTarget(packet, lease)
  if (classified.boot === undefined || decision.kind === 'nak')
    return { answer: { packet: lease, to }, isBoot: false }
  const boot = await options.boots.decide(arrival)
  const merged = withBoot(lease, packet, { classified, decision: boot, context: options.boot })
  return { answer: { packet: merged, to }, isBoot: boot.kind !== 'none' && type === MESSAGE_TYPE.discover }
}

async function tell(
  arrival: Arrival,
  said: { readonly ask: LeaseAsk; readonly decision: LeaseDecision; readonly isBoot: boolean },
  { notices, boots }: LeaseResponderOptions,
): Promise<void> {
  const { mac, classified } = arrival
  const notice = leaseNotice(said.ask, said.decision)
  if (notice !== undefined) await notices.tell(notice.event, notice.key, notice.value)
  if (classified.boot === undefined) return // only a machine that netboots belongs into the registry: not every telephone
  const address: Ipv4 | undefined = said.decision.kind === 'ack' ? said.decision.lease.ip : undefined
  await notices.saw(mac, {
    firmware: classified.boot.firmware,
    ...(classified.uuid && { uuid: classified.uuid }),
    ...(address && { address }),
  })
  if (said.isBoot) await boots.offered(arrival)
}
