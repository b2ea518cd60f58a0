// What a snapshot's file is called: everything that is known of it, so that the file and what is said of it cannot part.

import { findMac, type Mac, macToPath } from '#lib/mac.ts'

export interface SnapshotName {
  /** Counts up from 1: which one is newer does not hang on a clock that may be wrong. */
  readonly number: number
  readonly takenMs: number
  readonly clusterId: string
  readonly mac: Mac
  /** Hex. */
  readonly sha256: string
}

const NAME =
  /^(?<number>\d{10})_(?<takenMs>\d{1,15})_(?<cluster>[0-9a-f]{16})_(?<mac>[0-9a-f-]{17})_(?<sha256>[0-9a-f]{64})\.db$/

export function formatSnapshotName({ number, takenMs, clusterId, mac, sha256 }: SnapshotName): string {
  return `${String(number).padStart(10, '0')}_${takenMs}_${clusterId}_${macToPath(mac)}_${sha256}.db`
}

/** Undefined for the name of anything else. */
export function findSnapshotName(text: string): SnapshotName | undefined {
  const { number, takenMs, cluster = '', mac: path = '', sha256 = '' } = NAME.exec(text)?.groups ?? {}
  const mac = findMac(path)
  if (mac === undefined) return undefined
  return { number: Number(number), takenMs: Number(takenMs), clusterId: cluster, mac, sha256 }
}

export function isClusterId(text: string): boolean {
  return /^[0-9a-f]{16}$/.test(text)
}
