// What a lease decision means for the history.

import type { NewEvent } from '#machine/event.ts'

import type { LeaseAsk, LeaseDecision } from './lease-types.ts'

export interface LeaseNotice {
  readonly event: NewEvent
  /** What the event is about: it is told once per key and value. */
  readonly key: string
  readonly value?: string
}

/** Undefined for what is everyday business. */
export function leaseNotice(ask: LeaseAsk, decision: LeaseDecision): LeaseNotice | undefined {
  const { mac } = ask
  switch (decision.kind) {
    case 'ack': {
      if (!decision.isFirst) return undefined
      const { ip } = decision.lease
      const message = `${ip} is leased to ${mac}`
      return { event: { kind: 'dhcp-leased', mac, message, data: { ip } }, key: `leased ${mac}`, value: ip }
    }
    case 'nak': {
      const { ip, reason } = decision
      const message = `${mac} may not have ${ip}: ${reason}`
      const event = { kind: 'dhcp-refused', mac, message, data: { ip, reason } } as const
      return { event, key: `refused ${mac}`, value: `${reason} ${ip}` }
    }
    case 'decline': {
      const { ip } = decision.lease
      const message = `${mac} found ${ip} in use by something else; nobody gets it for some hours`
      return { event: { kind: 'dhcp-declined', mac, message, data: { ip } }, key: `declined ${ip}` }
    }
    case 'silent':
      return silenceNotice(ask, decision.reason)
    case 'offer':
    case 'inform-ack':
    case 'release':
      return undefined
    default:
      return decision satisfies never
  }
}

function silenceNotice(
  ask: LeaseAsk,
  reason: Extract<LeaseDecision, { kind: 'silent' }>['reason'],
): LeaseNotice | undefined {
  const { mac, relayIp, serverId } = ask
  if (reason === 'pool-empty') {
    const message = `no address is left for ${mac}: widen dhcp/pool or shorten dhcp/lease-seconds`
    return { event: { kind: 'dhcp-pool-empty', mac, message }, key: 'pool-empty' }
  }
  if (reason === 'too-many-newcomers') {
    const message = 'so many unknown machines ask for addresses that some get no answer'
    return { event: { kind: 'dhcp-refused', mac, message, data: { reason } }, key: 'newcomers' }
  }
  if (reason === 'other-subnet' && relayIp !== undefined) {
    const message = `no pool for the network of relay agent ${relayIp}`
    return {
      event: { kind: 'dhcp-refused', mac, message, data: { relayIp, reason } },
      key: `relay ${relayIp}`,
    }
  }
  if (reason === 'other-server' && serverId !== undefined) {
    const message = `${mac} took its address from another DHCP server on this network: ${serverId}`
    return {
      event: { kind: 'dhcp-refused', mac, message, data: { serverId, reason } },
      key: `server ${serverId}`,
    }
  }
  return undefined
}
