// Where a machine's power is cut: a handful of points for every run, and as many as wanted drawn by a seed.

import type { EventKind } from '#machine/event.ts'

/** What the machine is busy with. */
export const CUT_PHASES = ['install', 'update', 'bundle', 'powerwash'] as const
export type CutPhase = (typeof CUT_PHASES)[number]

export interface CutPoint {
  readonly phase: CutPhase
  /** The event to wait for, then so long; `start` is the moment in which the phase was asked for. */
  readonly after: Landmark
  readonly delayMs: number
}

/** An event's kind, for a step with its name. */
export type Landmark = 'start' | EventKind | `step-started ${string}` | `step-done ${string}`

interface Range {
  readonly after: Landmark
  readonly upToMs: number
}

/** Together they cover each phase from its beginning to the system that runs by it, on emulated cores. */
const RANGES: Readonly<Record<CutPhase, readonly Range[]>> = {
  install: [
    { after: 'step-started 36-disks', upToMs: 3_000 },
    { after: 'step-started 42-partitions', upToMs: 5_000 },
    { after: 'step-started 43-slot', upToMs: 20_000 },
    { after: 'step-started 61-disk-root', upToMs: 60_000 },
    { after: 'step-started 70-handover', upToMs: 90_000 },
  ],
  update: [
    { after: 'step-started update', upToMs: 25_000 },
    { after: 'step-done update', upToMs: 5_000 },
    { after: 'update-started', upToMs: 15_000 },
    { after: 'update-started', upToMs: 100_000 },
  ],
  bundle: [
    { after: 'start', upToMs: 4_000 },
    { after: 'step-started bundle', upToMs: 3_000 },
    { after: 'bundle-applied', upToMs: 2_000 },
  ],
  powerwash: [
    { after: 'start', upToMs: 15_000 },
    { after: 'powerwash-begun', upToMs: 3_000 },
    { after: 'step-started 42-partitions', upToMs: 5_000 },
    { after: 'step-started 43-slot', upToMs: 20_000 },
    { after: 'step-started 61-disk-root', upToMs: 80_000 },
  ],
}

/** Two lives of three cuts each: one at least in each phase, and the riskiest writes among them. */
export const EVERY_RUN: readonly (readonly CutPoint[])[] = [
  [
    { phase: 'install', after: 'step-started 43-slot', delayMs: 4_000 },
    { phase: 'update', after: 'step-started update', delayMs: 6_000 },
    { phase: 'bundle', after: 'step-started bundle', delayMs: 300 },
  ],
  [
    { phase: 'install', after: 'step-started 42-partitions', delayMs: 400 },
    { phase: 'update', after: 'update-started', delayMs: 2_500 },
    { phase: 'powerwash', after: 'step-started 42-partitions', delayMs: 1_000 },
  ],
]

/** `lives` lists of together `count` points. The same seed gives the same ones. */
export function drawCutPoints(
  seed: number,
  { count, lives }: { count: number; lives: number },
): CutPoint[][] {
  const random = randomNumbers(seed)
  const pick = <T>(items: readonly T[]) => items[Math.floor(random() * items.length)] as T
  const drawn = Array.from({ length: lives }, (): CutPoint[] => [])
  for (let index = 0; index < count; index += 1) {
    const life = drawn[index % lives] ?? []
    // A machine is installed first; then each phase has its turn, so that none is left out by chance.
    const phase = life.length === 0 ? 'install' : (CUT_PHASES[life.length % CUT_PHASES.length] ?? 'update')
    const { after, upToMs } = pick(RANGES[phase])
    life.push({ phase, after, delayMs: Math.floor(random() * upToMs) })
  }
  return drawn
}

/** mulberry32: small, and the same everywhere; from 0 up to 1. */
export function randomNumbers(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}
