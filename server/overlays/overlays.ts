// The overlay bundles of all machines: made when asked for, never older than the question, last good when in error.

import { mkdir } from 'node:fs/promises'

import { type Clock, systemClock } from '#lib/clock.ts'
import { describeError, KitError } from '#lib/errors.ts'
import type { Log } from '#lib/log.ts'
import type { Mac } from '#lib/mac.ts'
import type { NewEvent } from '#machine/event.ts'
import type { Bundle, Bundles, EventLog, ExplainedFile, ProfileProblem } from '#machine/ports.ts'

import { BundleMaker, DEFAULT_LIMITS, type Made, mergeOverlay, type OverlayLimits } from './bundle-maker.ts'
import { type BundleStore, openBundleStore } from './bundle-store.ts'
import { createJoinedWork } from './joined-work.ts'
import type { MergedEntry } from './merge.ts'
import { ProblemBook, textOf } from './problem-book.ts'
import { type LayerDirectory, type OverlayLayer, readOverlayLayer } from './read-layer.ts'
import { SourceChangedError } from './source-file.ts'

/** Whoever knows which layers a machine has. */
export interface LayerSource {
  /** Lowest first. */
  layersFor(mac: Mac): readonly LayerDirectory[]
}

export interface OverlaysOptions {
  /** For the archives; made when it is not there. */
  readonly directory: string
  readonly sources: LayerSource
  readonly events: Pick<EventLog, 'append'>
  readonly log: Log
  readonly clock?: Clock
  readonly limits?: OverlayLimits
  /** How long an archive that no machine has any more is kept for boots that have begun. */
  readonly graceMs?: number
}

export interface Overlays extends Bundles {
  /** Looks at the overlays of these machines anew and tells of new bundles. Others' problems are forgotten. Never throws. */
  refresh(macs: readonly Mac[]): Promise<void>
  /** Everything wrong with overlays, as far as they were asked for. */
  problems(): readonly ProfileProblem[]
}

export function createOverlays(options: OverlaysOptions): Overlays {
  return new OverlayService(options)
}

/** Someone may save files all the time; after so many attempts the next question may be luckier. */
const MAX_ATTEMPTS = 5

const HOUR_MS = 3_600_000

class OverlayService implements Overlays {
  readonly #options: OverlaysOptions
  readonly #book = new ProblemBook('the overlay can be read again')
  readonly #readLayer = createJoinedWork(
    ({ layer, directory }: LayerDirectory) => `${layer}\n${directory}`,
    (place) => readOverlayLayer(place),
  )
  /** One at a time per machine, so that an older answer never overwrites a newer one in the records. */
  readonly bundleFor = createJoinedWork(
    (mac: Mac) => mac,
    (mac) => this.#bundleFor(mac),
  )
  #opened: Promise<OpenedParts> | undefined

  constructor(options: OverlaysOptions) {
    this.#options = options
  }

  async explain(mac: Mac): Promise<readonly ExplainedFile[]> {
    const layers = await this.#readLayers(this.#options.sources.layersFor(mac))
    const { entries, problems } = mergeOverlay(layers, this.#options.limits ?? DEFAULT_LIMITS)
    if (problems.length > 0) throw refusal(mac, problems)
    return entries.map(explainEntry)
  }

  async findBundle(digest: string): Promise<Bundle | undefined> {
    const { store } = await this.#open()
    return store.find(digest)
  }

  async refresh(macs: readonly Mac[]): Promise<void> {
    this.#book.keepOnly(macs)
    await Promise.all(
      macs.map(async (mac) => {
        try {
          await this.bundleFor(mac)
        } catch (error) {
          this.#options.log.warn({ mac, err: describeError(error) }, 'Cannot make an overlay bundle')
        }
      }),
    )
  }

  problems(): readonly ProfileProblem[] {
    return this.#book.list()
  }

  async #bundleFor(mac: Mac): Promise<Bundle> {
    const { store } = await this.#open()
    const places = this.#options.sources.layersFor(mac)
    const layersKey = places.map(({ layer }) => layer).join(' ')
    const made = await this.#make(places)
    await this.#tell(this.#book.note(mac, made.problems))
    // Only a bundle of the very same layers will do: another role's files would be a wrong profile.
    const bundle = made.bundle ?? (await store.findLastGood(layersKey))
    if (bundle === undefined) throw refusal(mac, made.problems)
    const previous = await store.record(mac, layersKey, bundle.digest)
    if (previous !== undefined && previous !== bundle.digest) {
      const message = `overlay bundle ${bundle.digest.slice(0, 12)}, ${bundle.sizeBytes} bytes`
      await this.#tell([{ kind: 'bundle-changed', mac, message, data: { bundle: bundle.digest, previous } }])
    }
    return bundle
  }

  async #make(places: readonly LayerDirectory[]): Promise<Made> {
    const { maker } = await this.#open()
    for (let attempt = 1; ; attempt += 1) {
      const layers = await this.#readLayers(places)
      try {
        return await maker.make(layers)
      } catch (error) {
        if (error instanceof SourceChangedError && attempt < MAX_ATTEMPTS) continue
        // A full disk, for instance: what the machines had stays in force.
        const { layer = '', directory: file = '' } = layers.at(-1) ?? {}
        return { problems: [{ layer, file, message: `Cannot pack the overlay: ${describeError(error)}` }] }
      }
    }
  }

  /** Those that have an overlay, or should have one. */
  async #readLayers(places: readonly LayerDirectory[]): Promise<readonly OverlayLayer[]> {
    const layers = await Promise.all(places.map((place) => this.#readLayer(place)))
    return layers.filter(({ signature, problems }) => signature !== '' || problems.length > 0)
  }

  /** At the first question, so that nothing has to be started; a failure is tried again at the next one. */
  #open(): Promise<OpenedParts> {
    this.#opened ??= openParts(this.#options).catch((error: unknown) => {
      this.#opened = undefined
      throw error
    })
    return this.#opened
  }

  async #tell(events: readonly NewEvent[]): Promise<void> {
    for (const event of events) {
      try {
        await this.#options.events.append(event)
      } catch (error) {
        this.#options.log.error({ err: error, event }, 'Cannot write an event of the overlays')
      }
    }
  }
}

interface OpenedParts {
  readonly store: BundleStore
  readonly maker: BundleMaker
}

async function openParts(options: OverlaysOptions): Promise<OpenedParts> {
  const { directory, log, clock = systemClock, limits = DEFAULT_LIMITS, graceMs = HOUR_MS } = options
  try {
    await mkdir(directory, { recursive: true })
    const store = await openBundleStore({ directory, clock, log, graceMs })
    return { store, maker: new BundleMaker({ store, directory, clock, limits }) }
  } catch (cause) {
    throw new KitError(
      'unavailable',
      `Cannot keep overlay bundles in ${directory}: ${describeError(cause)}`,
      { cause },
    )
  }
}

function refusal(mac: Mac, problems: readonly ProfileProblem[]): KitError {
  const lines = problems.map((problem) => `\n  ${textOf(problem)}`)
  return new KitError('conflict', `Cannot make the overlay of ${mac}:${lines.join('')}`)
}

export function explainEntry({ entry, hides }: MergedEntry): ExplainedFile {
  const { kind, path, layer } = entry
  const { mode, uid, gid } = entry.kind === 'delete' ? { mode: 0, uid: 0, gid: 0 } : entry
  return { path: `/${path}`, layer, kind, mode: mode.toString(8).padStart(4, '0'), uid, gid, hides }
}
