// One read transfer as a state machine: what arrives goes in, what is to be done comes out. No socket, no clock.

import type { TransferParameters } from '#wire/tftp-options.ts'

/** Blocks are counted from 1 without end; on the wire only the low 16 bits are seen, so 65,535 is followed by 0. */
export interface Transfer {
  readonly parameters: TransferParameters
  readonly lastBlock: number
  /** `offered`: an OACK was sent and awaits ACK 0. */
  readonly phase: 'offered' | 'sending'
  /** The client asked for the size: it may well want nothing else. */
  readonly sizeAsked: boolean
  /** The client has all blocks up to this one. */
  readonly acked: number
  /** The highest block sent so far. */
  readonly sent: number
  /** Which window was sent twice: this one, the one before, or neither of them. See `onRepeatedAck`. */
  readonly sentTwice: 'this' | 'before' | 'neither'
  /** Timeouts since the client was last heard to get further. */
  readonly timeouts: number
}

export type TransferEvent =
  | { readonly kind: 'ack'; readonly block: number }
  | { readonly kind: 'timeout' }
  | { readonly kind: 'error'; readonly code: number; readonly message: string }

/**
 * How it ended.
 * - `complete`: the client has the whole file
 * - `probed`: the client wanted the size only, which is how OVMF begins every boot
 * - `aborted`: the client gave up, with its own words
 * - `lost`: the client went silent
 */
export type TransferOutcome =
  | { readonly kind: 'complete' }
  | { readonly kind: 'probed' }
  | { readonly kind: 'aborted'; readonly code: number; readonly message: string }
  | { readonly kind: 'lost' }

export type TransferAction =
  | { readonly kind: 'send-oack' }
  /** Send these blocks, both ends included. */
  | { readonly kind: 'send-blocks'; readonly first: number; readonly last: number }
  /** Make a timeout event in this time, and none that was due before. */
  | { readonly kind: 'wait'; readonly delayMs: number }
  /** Always the last one. */
  | { readonly kind: 'end'; readonly outcome: TransferOutcome }

export interface Step {
  readonly transfer: Transfer
  readonly actions: readonly TransferAction[]
}

export interface RetryPolicy {
  /** Before the first retransmission, unless the client asked for a timeout of its own. */
  readonly firstDelayMs: number
  /** Each wait is twice the one before, up to here. */
  readonly longestDelayMs: number
  /** Retransmissions without an answer after which the client counts as lost. */
  readonly tries: number
}

/** Firmware waits one to four seconds itself; a client that says nothing for half a minute has gone. */
export const RETRY_POLICY: RetryPolicy = { firstDelayMs: 1000, longestDelayMs: 8000, tries: 6 }

export interface TransferPlan {
  readonly parameters: TransferParameters
  readonly sizeBytes: number
  /** Options were granted: begin with an OACK. */
  readonly oack: boolean
  readonly sizeAsked: boolean
}

/** The first step of a transfer. */
export function beginTransfer(plan: TransferPlan, policy: RetryPolicy): Step {
  const { parameters, sizeBytes, sizeAsked } = plan
  const transfer: Transfer = {
    parameters,
    // The end is a block shorter than the others, an empty one if need be (RFC 1350 §6).
    lastBlock: Math.floor(sizeBytes / parameters.blockBytes) + 1,
    phase: plan.oack ? 'offered' : 'sending',
    sizeAsked,
    acked: 0,
    sent: 0,
    sentTwice: 'neither',
    timeouts: 0,
  }
  if (!plan.oack) return sendWindow(transfer, policy)
  return { transfer, actions: [{ kind: 'send-oack' }, wait(transfer, policy)] }
}

export function advanceTransfer(transfer: Transfer, event: TransferEvent, policy: RetryPolicy): Step {
  switch (event.kind) {
    case 'ack':
      return onAck(transfer, event.block, policy)
    case 'timeout':
      return onTimeout(transfer, policy)
    case 'error': {
      // OVMF ends its probe with error 8, "User aborted the transfer" (testdata/ovmf-pxe-then-ipxe2019-efi.pcap).
      const probed = transfer.phase === 'offered' && transfer.sizeAsked
      return end(transfer, probed ? { kind: 'probed' } : { ...event, kind: 'aborted' })
    }
    default:
      return event satisfies never
  }
}

function onAck(transfer: Transfer, block: number, policy: RetryPolicy): Step {
  // How many blocks past the last known one; bogus and outdated ACKs come out beyond what is in flight.
  const gained = (block - transfer.acked) & 0xffff
  if (transfer.phase === 'offered') {
    if (gained !== 0) return { transfer, actions: [] }
    return sendWindow({ ...transfer, phase: 'sending', timeouts: 0 }, policy)
  }
  if (gained === 0) return onRepeatedAck(transfer, policy)
  if (gained > transfer.sent - transfer.acked) return { transfer, actions: [] }
  const acked = transfer.acked + gained
  const sentTwice = transfer.sentTwice === 'this' ? 'before' : 'neither'
  const next: Transfer = { ...transfer, acked, sentTwice, timeouts: 0 }
  if (acked === transfer.lastBlock) return end(next, { kind: 'complete' })
  // An ACK from the middle of the window says that the block behind it was lost: go on from there (RFC 7440 §4).
  return sendWindow(next, policy)
}

/**
 * With one block in flight a repeated ACK is ignored: answering it doubles every packet from then on, the
 * Sorcerer's Apprentice bug (RFC 1123 §4.2.3.1); the timer mends a real loss. With a window it may also say that the
 * window's first block was lost (RFC 7440 §4), so it is answered, but not when it may be the echo of a window that
 * went out twice: clients acknowledge the second copy too (seen with atftp 0.8). So a doubling dies out at once.
 */
function onRepeatedAck(transfer: Transfer, policy: RetryPolicy): Step {
  if (transfer.parameters.windowBlocks === 1 || transfer.sentTwice !== 'neither')
    return { transfer, actions: [] }
  return sendWindow({ ...transfer, sentTwice: 'this' }, policy)
}

function onTimeout(transfer: Transfer, policy: RetryPolicy): Step {
  if (transfer.timeouts >= policy.tries) {
    // Some firmware ends its size probe by saying nothing more (testdata/ovmf-pxe-then-ipxe-efi.pcap).
    const probed = transfer.phase === 'offered' && transfer.sizeAsked
    return end(transfer, { kind: probed ? 'probed' : 'lost' })
  }
  const next = { ...transfer, timeouts: transfer.timeouts + 1 }
  if (next.phase === 'sending') return sendWindow({ ...next, sentTwice: 'this' }, policy)
  return { transfer: next, actions: [{ kind: 'send-oack' }, wait(next, policy)] }
}

function sendWindow(transfer: Transfer, policy: RetryPolicy): Step {
  const first = transfer.acked + 1
  const last = Math.min(transfer.acked + transfer.parameters.windowBlocks, transfer.lastBlock)
  const next = { ...transfer, sent: Math.max(transfer.sent, last) }
  return { transfer: next, actions: [{ kind: 'send-blocks', first, last }, wait(next, policy)] }
}

function wait(transfer: Transfer, policy: RetryPolicy): TransferAction {
  const { timeoutSeconds } = transfer.parameters
  const firstMs = timeoutSeconds === undefined ? policy.firstDelayMs : timeoutSeconds * 1000
  const longestMs = Math.max(policy.longestDelayMs, firstMs)
  return { kind: 'wait', delayMs: Math.min(firstMs * 2 ** transfer.timeouts, longestMs) }
}

function end(transfer: Transfer, outcome: TransferOutcome): Step {
  return { transfer, actions: [{ kind: 'end', outcome }] }
}
