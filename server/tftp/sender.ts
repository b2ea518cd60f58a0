// Runs one transfer: carries out what transfer.ts decides, over whatever way out it is given.

import type { Clock } from '#lib/clock.ts'
import { encodeDataHeader, encodeTftp, type TftpOptions, type TftpPacket } from '#wire/tftp.ts'

import type { TftpContent } from './routes.ts'
import {
  advanceTransfer,
  beginTransfer,
  type RetryPolicy,
  type Step,
  type Transfer,
  type TransferAction,
  type TransferEvent,
  type TransferOutcome,
  type TransferPlan,
} from './transfer.ts'

export interface SenderOptions {
  readonly plan: TransferPlan
  readonly granted: TftpOptions
  readonly content: TftpContent
  readonly clock: Clock
  readonly policy: RetryPolicy
  /** One packet to the client, given as its parts. */
  readonly send: (parts: readonly Uint8Array[]) => void
  /** Called once, unless `stop` came first; no timer is left then. */
  readonly onEnd: (outcome: TransferOutcome) => void
}

export class Sender {
  readonly #options: SenderOptions
  readonly #oack: Uint8Array
  #transfer: Transfer | undefined
  #cancelWait = () => {}
  #ended = false
  #heardMs = Number.NEGATIVE_INFINITY

  constructor(options: SenderOptions) {
    this.#options = options
    this.#oack = encodeTftp({ kind: 'oack', options: options.granted })
  }

  /** True until the client has confirmed the first block, and from then on while it lets no retransmission become due. */
  get isLively(): boolean {
    const { clock, policy } = this.#options
    if ((this.#transfer?.acked ?? 0) === 0) return true
    return clock.monotonicMs() - this.#heardMs < policy.firstDelayMs
  }

  /** Something came back from where the request seemed to come from. */
  get wasHeard(): boolean {
    return this.#heardMs > Number.NEGATIVE_INFINITY
  }

  begin(): void {
    this.#take(beginTransfer(this.#options.plan, this.#options.policy))
  }

  /** What the client sent to this transfer. Packets that mean nothing to a sender are ignored. */
  receive(packet: TftpPacket): void {
    if (packet.kind !== 'ack' && packet.kind !== 'error') return
    this.#heardMs = this.#options.clock.monotonicMs()
    this.#advance(packet)
  }

  /** Ends without a word to anybody. */
  stop(): void {
    this.#ended = true
    this.#cancelWait()
  }

  #advance(event: TransferEvent): void {
    if (this.#ended || this.#transfer === undefined) return
    this.#take(advanceTransfer(this.#transfer, event, this.#options.policy))
  }

  #take(step: Step): void {
    this.#transfer = step.transfer
    for (const action of step.actions) this.#carryOut(action, step.transfer)
  }

  #carryOut(action: TransferAction, transfer: Transfer): void {
    switch (action.kind) {
      case 'send-oack':
        this.#options.send([this.#oack])
        break
      case 'send-blocks':
        this.#sendBlocks(action.first, action.last, transfer.parameters.blockBytes)
        break
      case 'wait':
        this.#cancelWait()
        this.#cancelWait = this.#options.clock.after(action.delayMs, () => this.#advance({ kind: 'timeout' }))
        break
      case 'end':
        this.stop()
        this.#options.onEnd(action.outcome)
        break
      default:
        action satisfies never
    }
  }

  #sendBlocks(first: number, last: number, blockBytes: number): void {
    for (let block = first; block <= last; block++) {
      const start = (block - 1) * blockBytes
      this.#options.send([encodeDataHeader(block), this.#options.content.subarray(start, start + blockBytes)])
    }
  }
}
