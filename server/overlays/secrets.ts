// The secret files of all machines: merged like overlays, opened and packed in memory, and nowhere else.

import { type Clock, systemClock } from '#lib/clock.ts'
import { describeError, KitError } from '#lib/errors.ts'
import type { Log } from '#lib/log.ts'
import type { Mac } from '#lib/mac.ts'
import type { NewEvent } from '#machine/event.ts'
import type { EventLog, ProfileProblem } from '#machine/ports.ts'
import { SECRET_MAX_BYTES } from '#machine/secret-files.ts'
import type {
  ExplainedSecrets,
  Secrets,
  SecretsArchive,
  SecretsInfo,
  SecretsKey,
} from '#machine/secret-ports.ts'

import type { FileEntry } from './entries.ts'
import { createJoinedWork } from './joined-work.ts'
import { SECRET_PART } from './layer-part.ts'
import { mergeLayers } from './merge.ts'
import { OpenedFiles } from './opened-files.ts'
import { explainEntry, type LayerSource } from './overlays.ts'
import { ProblemBook } from './problem-book.ts'
import { type LayerDirectory, type OverlayLayer, readOverlayLayer } from './read-layer.ts'
import { handedOut, type MadeArchive, makeSecretArchive } from './secret-archive.ts'
import { SourceChangedError } from './source-file.ts'

export interface SecretLimits {
  readonly fileBytes: number
  /** Of all files of a machine, with their headers in the archive. */
  readonly machineBytes: number
  /** Of what is kept opened for all machines. */
  readonly keptBytes: number
}

const MIB = 1024 * 1024

const DEFAULT_LIMITS: SecretLimits = {
  fileBytes: SECRET_MAX_BYTES,
  machineBytes: 4 * MIB,
  keptBytes: 64 * MIB,
}

export interface SecretFilesOptions {
  readonly sources: LayerSource
  readonly key: Pick<SecretsKey, 'open'>
  readonly events: Pick<EventLog, 'append'>
  readonly log: Log
  readonly clock?: Clock
  readonly limits?: SecretLimits
}

/** `secretsFor`, `read` and `explain` throw KitError `unavailable` while a layer cannot be read at all. */
export interface SecretFiles extends Secrets {
  /** Looks at the secrets of these machines anew, and tells what is wrong. Others' are forgotten. Never throws. */
  refresh(macs: readonly Mac[]): Promise<void>
  /** Everything wrong with secrets, as far as they were asked for. */
  problems(): readonly ProfileProblem[]
}

export function createSecretFiles(options: SecretFilesOptions): SecretFiles {
  return new SecretService(options)
}

/** Someone may save files all the time; after so many attempts the next question may be luckier. */
const MAX_ATTEMPTS = 5

/** As in bundle-maker.ts: signatures this fresh are not relied on. */
const TICK_MS = 2000

/** What the layers came to when they looked so. The archive itself is made anew for each machine that fetches it. */
interface Known {
  readonly signature: string
  readonly info: SecretsInfo | undefined
  readonly problems: readonly ProfileProblem[]
}

class SecretService implements SecretFiles {
  readonly #options: SecretFilesOptions
  readonly #limits: SecretLimits
  readonly #clock: Clock
  readonly #book = new ProblemBook('its secrets can be read again')
  readonly #opened: OpenedFiles
  /** By the layers that have secrets: machines that share these share the work. */
  readonly #known = new Map<string, Known>()
  /** By all layers of a machine. */
  readonly #latest = new Map<string, Known>()
  readonly #readLayer = createJoinedWork(
    ({ layer, directory }: LayerDirectory) => `${layer}\n${directory}`,
    (place) => readOverlayLayer(place, SECRET_PART),
  )
  readonly #look: (places: readonly LayerDirectory[]) => Promise<Known> = createJoinedWork(keyOf, (places) =>
    this.#lookAt(places),
  )

  constructor(options: SecretFilesOptions) {
    const { limits = DEFAULT_LIMITS, clock = systemClock, key } = options
    this.#options = options
    this.#limits = limits
    this.#clock = clock
    this.#opened = new OpenedFiles({ key, fileBytes: limits.fileBytes, keptBytes: limits.keptBytes })
  }

  async secretsFor(mac: Mac): Promise<SecretsInfo | undefined> {
    const { info, problems } = await this.#look(this.#options.sources.layersFor(mac))
    await this.#tell(this.#book.note(mac, problems))
    return info
  }

  async read(mac: Mac): Promise<SecretsArchive | undefined> {
    const { archive } = await this.#make(this.#options.sources.layersFor(mac))
    return archive
  }

  async explain(mac: Mac): Promise<ExplainedSecrets> {
    const places = this.#options.sources.layersFor(mac)
    const { problems } = await this.#look(places)
    const { entries } = mergeLayers(await this.#readLayers(places))
    const handed = new Set(handedOut(entries.map(({ entry }) => entry)))
    return { files: entries.filter(({ entry }) => handed.has(entry)).map(explainEntry), problems }
  }

  async refresh(macs: readonly Mac[]): Promise<void> {
    this.#book.keepOnly(macs)
    const layers = (await Promise.all(macs.map((mac) => this.#refresh(mac)))).flat()
    // Nothing is forgotten by half a look: a file system that is not mounted comes back.
    if (layers.some((layer) => layer === undefined || layer.isUnreadable)) return
    const entries = layers.flatMap((layer) => [...(layer?.entries.values() ?? [])])
    this.#opened.keepOnly(new Set(entries.flatMap((entry) => (entry.kind === 'file' ? [entry.source] : []))))
  }

  problems(): readonly ProfileProblem[] {
    return this.#book.list()
  }

  async #refresh(mac: Mac): Promise<readonly (OverlayLayer | undefined)[]> {
    try {
      await this.secretsFor(mac)
      return await this.#readLayers(this.#options.sources.layersFor(mac))
    } catch (error) {
      this.#options.log.warn({ mac, err: describeError(error) }, 'Cannot look at the secrets of a machine')
      return [undefined]
    }
  }

  async #lookAt(places: readonly LayerDirectory[]): Promise<Known> {
    const layers = await this.#readLayers(places)
    const unreadable = layers.find(({ isUnreadable }) => isUnreadable)
    // What cannot be read is not gone: no machine must be told to remove what it has.
    if (unreadable) return { ...this.#lastGood(places, unreadable), problems: unreadable.problems }
    const known = this.#known.get(keyOf(layers))
    const found = known?.signature === signatureOf(layers) ? known : await this.#makeKnown(places)
    this.#latest.set(keyOf(places), found)
    return found
  }

  async #makeKnown(places: readonly LayerDirectory[]): Promise<Known> {
    const lookedAtMs = this.#clock.nowMs()
    const { archive, problems, seen } = await this.#make(places)
    const info = archive && { digest: archive.digest, sizeBytes: archive.sizeBytes }
    const made = { signature: signatureOf(seen), info, problems }
    if (seen.every(({ changedMs }) => changedMs < lookedAtMs - TICK_MS)) this.#known.set(keyOf(seen), made)
    return made
  }

  #lastGood(places: readonly LayerDirectory[], layer: OverlayLayer): Known {
    const latest = this.#latest.get(keyOf(places))
    if (latest === undefined) throw unreadableNow(layer)
    return latest
  }

  async #make(places: readonly LayerDirectory[]): Promise<MadeArchive & { readonly seen: SeenLayers }> {
    for (let attempt = 1; ; attempt += 1) {
      const seen = await this.#readLayers(places)
      const unreadable = seen.find(({ isUnreadable }) => isUnreadable)
      if (unreadable) throw unreadableNow(unreadable)
      try {
        const { machineBytes } = this.#limits
        const nowMs = this.#clock.nowMs()
        const open = (entry: FileEntry) => this.#opened.open({ entry, nowMs })
        return { ...(await makeSecretArchive(seen, { open, machineBytes })), seen }
      } catch (cause) {
        if (!(cause instanceof SourceChangedError)) throw cause
        if (attempt === MAX_ATTEMPTS) {
          throw new KitError('unavailable', `Cannot read the secrets now: ${cause.message}`, { cause })
        }
      }
    }
  }

  /** Those that have secrets, or should have some. */
  async #readLayers(places: readonly LayerDirectory[]): Promise<SeenLayers> {
    const layers = await Promise.all(places.map((place) => this.#readLayer(place)))
    return layers.filter(({ signature, problems }) => signature !== '' || problems.length > 0)
  }

  async #tell(events: readonly NewEvent[]): Promise<void> {
    for (const event of events) {
      try {
        await this.#options.events.append(event)
      } catch (error) {
        this.#options.log.error({ err: error, event }, 'Cannot write an event of the secrets')
      }
    }
  }
}

type SeenLayers = readonly OverlayLayer[]

function unreadableNow({ layer, problems }: OverlayLayer): KitError {
  return new KitError('unavailable', `Cannot read the secrets of ${layer}: ${problems.at(-1)?.message}`)
}

function keyOf(places: readonly LayerDirectory[]): string {
  return places.map(({ layer, directory }) => `${layer}\n${directory}`).join('\n')
}

function signatureOf(layers: readonly OverlayLayer[]): string {
  return layers.map(({ signature }) => signature).join('\n')
}
