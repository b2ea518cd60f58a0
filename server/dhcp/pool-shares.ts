// Who may have how much of the pool: a part is kept for machines that the server knows, so that a flood of made-up MACs
// leaves them their addresses. Pure; docs/ports-and-endpoints.md tells the rules.

import { ipv4ToNumber } from '#lib/ipv4.ts'

import { grantedSeconds } from './lease-times.ts'
import type { AddressRange, LeasePolicy } from './lease-types.ts'

/** First and last address as numbers; the last one belongs to it, and is below the first when it is empty. */
export interface Stretch {
  readonly first: number
  readonly last: number
}

export interface Shares {
  /** For everybody. */
  readonly open: Stretch
  /** For known machines only: the end of the pool. */
  readonly kept: Stretch
}

const NOTHING: Stretch = { first: 0, last: -1 }

export function shareOut(pool: AddressRange | undefined, keptPercent: number): Shares {
  if (pool === undefined) return { open: NOTHING, kept: NOTHING }
  const [first, last] = [ipv4ToNumber(pool.first), ipv4ToNumber(pool.last)]
  const size = last - first + 1
  const openSize = size - Math.floor((size * keptPercent) / 100)
  return { open: { first, last: first + openSize - 1 }, kept: { first: first + openSize, last } }
}

/** What is asked for, at most what such a machine may have. */
export function secondsFor(
  isKnown: boolean,
  asked: number | undefined,
  policy: Pick<LeasePolicy, 'leaseSeconds' | 'unknownLeaseSeconds'>,
): number {
  const { leaseSeconds, unknownLeaseSeconds } = policy
  return grantedSeconds(asked, isKnown ? leaseSeconds : Math.min(leaseSeconds, unknownLeaseSeconds))
}
