// What a mode of the service does with one packet.

import type { Endpoint } from '#lib/udp.ts'
import type { DhcpPacket } from '#wire/dhcp4.ts'

import type { Arrival } from './arrival.ts'

export interface Answer {
  readonly packet: DhcpPacket
  readonly to: Endpoint
  /** What the history and the registry are told once the answer is on its way. Never rejects. */
  readonly afterwards?: () => Promise<void>
}

/** Undefined: no answer. Throws DecodeError for a packet that proves broken only now, and what the store throws. */
export type Responder = (arrival: Arrival) => Promise<Answer | undefined>
