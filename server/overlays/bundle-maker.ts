// From merged entries to a bundle: limits, and packing again only when something has changed.

import { rm } from 'node:fs/promises'

import type { Clock } from '#lib/clock.ts'
import { systemErrorCode } from '#lib/errors.ts'
import type { Bundle, ProfileProblem } from '#machine/ports.ts'

import type { BundleStore } from './bundle-store.ts'
import type { Entry } from './entries.ts'
import { type MergedEntry, type MergedOverlay, mergeLayers } from './merge.ts'
import { type PackedArchive, packEntries } from './pack.ts'
import type { OverlayLayer } from './read-layer.ts'

export interface OverlayLimits {
  readonly sizeBytes: number
  readonly entries: number
}

/** A bundle is unpacked into the machine's memory or a small partition; what is bigger belongs into the image. */
export const DEFAULT_LIMITS: OverlayLimits = { sizeBytes: 256 * 1024 * 1024, entries: 20_000 }

/**
 * A file can be written twice within one tick of its time stamps, which then look the same (git calls it "racily
 * clean"). Signatures this fresh are not relied on. Two seconds is the coarsest tick of a file system in use.
 */
const TICK_MS = 2000

/** Without a bundle there are problems. */
export interface Made {
  readonly bundle?: Bundle
  readonly problems: readonly ProfileProblem[]
}

export interface BundleMakerOptions {
  readonly store: BundleStore
  readonly directory: string
  readonly clock: Clock
  readonly limits: OverlayLimits
}

export class BundleMaker {
  readonly #options: BundleMakerOptions
  /** By the list of layers that have an overlay: machines that share these share the bundle. */
  readonly #made = new Map<string, { readonly signature: string; readonly bundle: Bundle }>()
  readonly #underWay = new Map<string, Promise<Made>>()

  constructor(options: BundleMakerOptions) {
    this.#options = options
  }

  /** Throws SourceChangedError when a file is no longer as `layers` has it. */
  async make(layers: readonly OverlayLayer[]): Promise<Made> {
    const { store, clock } = this.#options
    const key = layers.map(({ layer, directory }) => `${layer}\n${directory}`).join('\n')
    const signature = [key, ...layers.map((layer) => layer.signature)].join('\n')
    const known = this.#made.get(key)
    if (known?.signature === signature && (await store.find(known.bundle.digest))) {
      return { bundle: known.bundle, problems: [] }
    }
    const running = this.#underWay.get(signature)
    if (running) return running
    const lookedAtMs = clock.nowMs()
    const making = this.#mergeAndPack(layers)
    this.#underWay.set(signature, making)
    try {
      const made = await making
      const isSettled = layers.every(({ changedMs }) => changedMs < lookedAtMs - TICK_MS)
      if (made.bundle && isSettled) this.#made.set(key, { signature, bundle: made.bundle })
      return made
    } finally {
      this.#underWay.delete(signature)
    }
  }

  async #mergeAndPack(layers: readonly OverlayLayer[]): Promise<Made> {
    const { entries, problems } = mergeOverlay(layers, this.#options.limits)
    if (problems.length > 0) return { problems }
    const { store } = this.#options
    const packed = await this.#pack(entries.map(({ entry }) => entry))
    const known = await store.find(packed.digest)
    if (known === undefined) return { bundle: await store.take(packed), problems }
    await rm(packed.file)
    return { bundle: known, problems }
  }

  /** A full disk costs the archives that are kept for no machine before it costs a new one. */
  async #pack(entries: readonly Entry[]): Promise<PackedArchive> {
    const { store, directory } = this.#options
    for (;;) {
      try {
        return await packEntries(entries, directory)
      } catch (cause) {
        if (systemErrorCode(cause) !== 'ENOSPC') throw cause
        if (await store.dropRetired()) continue
        const message = `no space is left in ${directory}`
        throw new Error(message, { cause })
      }
    }
  }
}

/** The layers over each other, with everything that is wrong with any of them or with the result. */
export function mergeOverlay(layers: readonly OverlayLayer[], limits: OverlayLimits): MergedOverlay {
  const { entries, problems } = mergeLayers(layers)
  const tooMuch = checkLimits(entries, limits)
  const highest = layers.at(-1)
  return {
    entries,
    problems: [
      ...layers.flatMap((layer) => layer.problems),
      ...problems,
      ...(tooMuch && highest ? [{ layer: highest.layer, file: highest.directory, message: tooMuch }] : []),
    ],
  }
}

function checkLimits(entries: readonly MergedEntry[], limits: OverlayLimits): string | undefined {
  const sizeBytes = entries.reduce(
    (sum, { entry }) => sum + (entry.kind === 'file' ? entry.stats.size : 0),
    0,
  )
  if (sizeBytes > limits.sizeBytes) {
    return `Cannot make an overlay of ${sizeBytes} bytes: at most ${limits.sizeBytes}; bigger things belong into the image`
  }
  return entries.length > limits.entries
    ? `Cannot make an overlay of ${entries.length} files: at most ${limits.entries}`
    : undefined
}
