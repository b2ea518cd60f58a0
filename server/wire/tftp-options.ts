// Which TFTP options a server grants: blksize (RFC 2348), tsize and timeout (RFC 2349), windowsize (RFC 7440).

import type { TftpOptions } from './tftp.ts'

/** How a transfer is to run. The defaults of RFC 1350: 512, 1. */
export interface TransferParameters {
  readonly blockBytes: number
  /** Blocks sent before an ACK is awaited. */
  readonly windowBlocks: number
  /** What the client wants between retransmissions; undefined leaves it to the server. */
  readonly timeoutSeconds: number | undefined
}

export interface TransferLimits {
  /** Keep it such that a data packet fits the link: firmware does not put fragments together. */
  readonly maxBlockBytes: number
  readonly maxWindowBlocks: number
}

export interface Negotiation {
  readonly parameters: TransferParameters
  /** What goes into the OACK. Empty: there must be none, and the first DATA answers the request (RFC 2347). */
  readonly granted: TftpOptions
}

/** 1,500 bytes of Ethernet less the headers of IPv4 (20), UDP (8) and TFTP (4). */
export const ETHERNET_BLOCK_BYTES = 1468

/**
 * RFC 2349 has 255. A client that is gone keeps its transfer for several times as long as this; curl asks for 6 s,
 * atftp's default is 5.
 */
const MAX_TIMEOUT_SECONDS = 10

/** Never fails: an option that is unknown or out of its range is as if it had not been sent (RFC 2347). */
export function negotiateTftp(asked: TftpOptions, sizeBytes: number, limits: TransferLimits): Negotiation {
  const granted = new Map<string, string>()
  const blockBytes = numberIn(asked.get('blksize'), 8, 65_464)
  const windowBlocks = numberIn(asked.get('windowsize'), 1, 65_535)
  const timeoutSeconds = numberIn(asked.get('timeout'), 1, MAX_TIMEOUT_SECONDS)
  const parameters = {
    blockBytes: Math.min(blockBytes ?? 512, limits.maxBlockBytes),
    windowBlocks: Math.min(windowBlocks ?? 1, limits.maxWindowBlocks),
    timeoutSeconds,
  }
  // blksize and windowsize may be answered with less than was asked, timeout only as it was.
  if (blockBytes !== undefined) granted.set('blksize', String(parameters.blockBytes))
  if (windowBlocks !== undefined) granted.set('windowsize', String(parameters.windowBlocks))
  if (timeoutSeconds !== undefined) granted.set('timeout', String(timeoutSeconds))
  // In a read request the value is 0 and of no interest (RFC 2349).
  if (asked.has('tsize')) granted.set('tsize', String(sizeBytes))
  return { parameters, granted }
}

/** A decimal in the range, else undefined. */
function numberIn(text: string | undefined, lowest: number, highest: number): number | undefined {
  if (text === undefined || !/^\d{1,5}$/.test(text)) return undefined
  const value = Number(text)
  return value >= lowest && value <= highest ? value : undefined
}
