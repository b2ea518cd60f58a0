// What benchmarks share: medians, and the surroundings that a test LAN wants, without a test.

import type { Surroundings } from '../qemu-tests/test-lan.ts'

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  const upper = sorted[middle] ?? Number.NaN
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2
}

/** To a tenth. */
export function seconds(milliseconds: number): number {
  return Math.round(milliseconds / 100) / 10
}

/** Ends what was started, the last first, however `work` ends; what is logged goes to stderr. */
export async function withSurroundings<T>(work: (t: Surroundings) => Promise<T>): Promise<T> {
  const ends: (() => unknown)[] = []
  const outcome = { passed: false }
  const t = {
    teardown: (end: () => unknown) => void ends.unshift(end),
    log: (...words: unknown[]) => void process.stderr.write(`${words.join(' ')}\n`),
    get passed() {
      return outcome.passed
    },
  }
  try {
    const result = await work(t)
    outcome.passed = true
    return result
  } finally {
    for (const end of ends) await end()
  }
}
