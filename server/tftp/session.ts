// One client's read request, from the question to the end of its transfer.

import type { RemoteInfo } from 'node:dgram'

import type { Clock } from '#lib/clock.ts'
import { describeError } from '#lib/errors.ts'
import type { Ipv4 } from '#lib/ipv4.ts'
import type { Log } from '#lib/log.ts'
import type { Endpoint } from '#lib/udp.ts'
import { encodeTftp, TFTP_ERROR, type TftpPacket, type TftpRequest } from '#wire/tftp.ts'
import { negotiateTftp, type TransferLimits } from '#wire/tftp-options.ts'

import { normaliseName } from './names.ts'
import type { TftpContent, TftpLookup } from './routes.ts'
import { Sender } from './sender.ts'
import type { RetryPolicy, TransferOutcome } from './transfer.ts'

/** Where a client sends from; the port is its transfer identifier (RFC 1350 §4). */
export type Peer = Endpoint

export function isPeer(peer: Peer, from: RemoteInfo): boolean {
  return from.port === peer.port && from.address === peer.ip
}

/** The way to one client and back. */
export interface Channel {
  send(parts: readonly Uint8Array[]): void
  /** Nothing is received after it resolves. */
  close(): Promise<void>
}

export interface SessionOptions {
  readonly request: TftpRequest
  readonly peer: Peer
  readonly lookup: TftpLookup
  readonly limits: TransferLimits
  readonly policy: RetryPolicy
  readonly clock: Clock
  readonly log: Log
  /** Called once at most; packets of this peer go to `receive`. */
  readonly openChannel: (receive: (packet: TftpPacket) => void) => Promise<Channel>
  /** Answers from the port the request came to, for refusals before there is a transfer. */
  readonly refuse: (code: number, message: string) => void
  readonly onSent: (ip: Ipv4, name: string, sizeBytes: number) => void
}

export class Session {
  readonly #options: SessionOptions
  readonly #name: string
  #sender: Sender | undefined
  #channel: Channel | undefined
  #stopped = false
  #finish = () => {}

  constructor(options: SessionOptions) {
    this.#options = options
    this.#name = normaliseName(options.request.name)
  }

  /** True while the client's request, come again, says nothing new: no answer is out yet, or the client was heard just now. */
  get isLively(): boolean {
    return this.#sender?.isLively ?? true
  }

  /** The client has said nothing since it asked: it may be slow, gone, or never have been there. */
  get isHalfOpen(): boolean {
    return this.#sender?.wasHeard !== true
  }

  /** Resolves when the transfer is over, however it ended, and its socket is closed. Never rejects. */
  async run(): Promise<void> {
    const { lookup, peer, refuse, log } = this.#options
    const about = { ip: peer.ip, name: this.#name }
    try {
      const content = await lookup(this.#name, peer.ip)
      if (this.#stopped) return
      if (content === undefined) {
        log.info(about, 'TFTP: a name that does not exist here')
        refuse(TFTP_ERROR['not-found'], `There is no file ${printable(this.#name)} here`)
      } else {
        await this.#transfer(content)
      }
    } catch (error) {
      if (this.#stopped) return
      log.error({ ...about, err: error }, `Cannot send ${this.#name} over TFTP: ${describeError(error)}`)
      refuse(TFTP_ERROR.other, 'The server cannot read this file: its log says why')
    }
  }

  receive(packet: TftpPacket): void {
    this.#sender?.receive(packet)
  }

  /** Ends it early; with a reason, the client is told. `run` resolves soon after. */
  stop(reason?: string): void {
    if (this.#stopped) return
    this.#stopped = true
    this.#sender?.stop()
    if (reason !== undefined) {
      this.#channel?.send([encodeTftp({ kind: 'error', code: TFTP_ERROR.other, message: reason })])
    }
    this.#finish()
  }

  async #transfer(content: TftpContent): Promise<void> {
    const { request, limits, clock, policy, openChannel } = this.#options
    const { parameters, granted } = negotiateTftp(request.options, content.length, limits)
    const channel = await openChannel((packet) => this.receive(packet))
    const startedMs = clock.monotonicMs()
    const over = Promise.withResolvers<void>()
    this.#channel = channel
    this.#finish = over.resolve
    this.#sender = new Sender({
      plan: {
        parameters,
        sizeBytes: content.length,
        oack: granted.size > 0,
        sizeAsked: granted.has('tsize'),
      },
      granted,
      content,
      clock,
      policy,
      send: channel.send,
      onEnd: (outcome) => {
        this.#report(outcome, content.length, clock.monotonicMs() - startedMs)
        over.resolve()
      },
    })
    if (this.#stopped) over.resolve()
    else this.#sender.begin()
    await over.promise
    this.#channel = undefined
    await channel.close()
  }

  #report(outcome: TransferOutcome, sizeBytes: number, elapsedMs: number): void {
    const { log, onSent, peer } = this.#options
    const about = { ip: peer.ip, name: this.#name }
    switch (outcome.kind) {
      case 'complete':
        log.info({ ...about, sizeBytes, elapsedMs: Math.round(elapsedMs) }, 'TFTP: sent')
        onSent(peer.ip, this.#name, sizeBytes)
        break
      case 'probed':
        log.debug(about, 'TFTP: the client asked for the size only')
        break
      case 'aborted':
        log.warn({ ...about, code: outcome.code, reason: outcome.message }, 'TFTP: the client gave up')
        break
      case 'lost':
        log.warn(about, 'TFTP: the client went silent')
        break
      default:
        outcome satisfies never
    }
  }
}

/** A name goes back to the client as plain ASCII of a sane length: it has come from anywhere. */
function printable(name: string): string {
  return name.slice(0, 100).replace(/[^\x20-\x7e]/g, '?')
}
