// From a datagram to its answer: decode, queue, respond, send. A packet can be ignored here, but never do harm.

import type { RemoteInfo, Socket } from 'node:dgram'

import { DecodeError } from '#lib/bytes.ts'
import type { Clock } from '#lib/clock.ts'
import { describeError } from '#lib/errors.ts'
import { BROADCAST_IPV4, type Ipv4 } from '#lib/ipv4.ts'
import type { Log } from '#lib/log.ts'
import type { Mac } from '#lib/mac.ts'
import { maxReplyBytes } from '#wire/dhcp4.ts'
import { encodeDhcp } from '#wire/dhcp4-encode.ts'

import { type Arrival, type Ear, findArrival } from './arrival.ts'
import { MinuteBudget } from './recently.ts'
import type { Answer, Responder } from './responder.ts'
import { WorkQueue } from './work-queue.ts'

/** A storm beyond this is dropped: clients repeat themselves, and an answer that comes too late helps nobody. */
const MAX_IN_FLIGHT = { total: 1024, perKey: 16, keptForFavoured: 256 }
/** Unicasts to addresses that do not answer ARP hold the socket's buffer for seconds: no more wait behind them than this. */
const MAX_UNSENT = 64

/** With the store out of order every packet fails; a full disk is not to be filled further. */
const WARNINGS_PER_MINUTE = 60

/** What answers leave through. Two, so that unicasts which nobody takes do not hold up the broadcasts. */
export interface Speakers {
  readonly unicast: Socket
  readonly broadcast: Socket
}

/** Since the start. */
export interface ListenerCounts {
  readonly received: number
  readonly answered: number
  /** Could not be decoded. */
  readonly broken: number
  /** Came when too much was in flight. */
  readonly dropped: number
  /** Did not fit or could not be sent: a client with impossible wishes or addresses. */
  readonly unsent: number
  /** Failed on our side: the store. */
  readonly failed: number
}

export interface ListenerOptions {
  readonly log: Log
  readonly clock: Clock
  /** Those that there is head-room for. */
  readonly isKnown: (mac: Mac) => boolean
}

export class Listener {
  readonly #respond: Responder
  readonly #log: Log
  readonly #isKnown: (mac: Mac) => boolean
  readonly #warnings: MinuteBudget
  readonly #queue = new WorkQueue(MAX_IN_FLIGHT)
  readonly #counts = { received: 0, answered: 0, broken: 0, unsent: 0, failed: 0 }

  constructor(respond: Responder, { log, clock, isKnown }: ListenerOptions) {
    this.#respond = respond
    this.#log = log
    this.#isKnown = isKnown
    this.#warnings = new MinuteBudget(clock, WARNINGS_PER_MINUTE)
  }

  get counts(): ListenerCounts {
    return { ...this.#counts, dropped: this.#queue.dropped }
  }

  /** None of the sockets is closed here, nor are their errors heard. */
  listen(socket: Socket, ear: Ear, speakers: Speakers): void {
    socket.on('message', (bytes, from) => this.#receive(bytes, from, { ear, speakers }))
  }

  /** Resolves when every packet taken in has been dealt with. */
  idle(): Promise<void> {
    return this.#queue.idle()
  }

  #receive(bytes: Buffer, from: RemoteInfo, { ear, speakers }: { ear: Ear; speakers: Speakers }): void {
    this.#counts.received++
    try {
      const arrival = findArrival(bytes, ear, { ip: from.address as Ipv4, port: from.port }) // dgram's own spelling
      if (arrival === undefined) return
      this.#queue.add(arrival.mac, () => this.#answer(arrival, speakers), this.#isKnown(arrival.mac))
    } catch (error) {
      this.#count(error, from.address)
    }
  }

  async #answer(arrival: Arrival, speakers: Speakers): Promise<void> {
    try {
      const answer = await this.#respond(arrival)
      if (answer === undefined) return
      await this.#send(answer, arrival, speakers)
      await answer.afterwards?.()
    } catch (error) {
      this.#count(error, arrival.mac)
    }
  }

  async #send(answer: Answer, arrival: Arrival, speakers: Speakers): Promise<void> {
    const maxBytes = maxReplyBytes(arrival.packet)
    const speaker = answer.to.ip === BROADCAST_IPV4 ? speakers.broadcast : speakers.unicast
    try {
      if (speaker.getSendQueueCount() > MAX_UNSENT) throw new Error('too many answers wait to be sent')
      await send(speaker, encodeDhcp(answer.packet, { maxBytes }), answer.to)
      this.#counts.answered++
    } catch (error) {
      this.#counts.unsent++
      this.#log.debug(
        { reason: describeError(error), mac: arrival.mac, to: answer.to.ip },
        'DHCP answer not sent',
      )
    }
  }

  #count(error: unknown, from: string): void {
    if (error instanceof DecodeError) {
      this.#counts.broken++
      this.#log.debug({ reason: error.message, from }, 'DHCP packet cannot be read')
      return
    }
    this.#counts.failed++
    if (this.#warnings.take()) this.#log.warn({ err: error, from }, 'DHCP packet cannot be answered')
  }
}

function send(socket: Socket, bytes: Uint8Array, to: { ip: string; port: number }): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.send(bytes, to.port, to.ip, (error) => (error === null ? resolve() : reject(error)))
  })
}
