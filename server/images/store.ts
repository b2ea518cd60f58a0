// The images of this server: kept, signed, imported, verified, removed.

import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

import { writeFileAtomically } from '#lib/atomic-file.ts'
import type { Clock } from '#lib/clock.ts'
import { describeError, KitError } from '#lib/errors.ts'
import { ImportJobs, type OnProgress } from '#lib/import-jobs.ts'
import { createKeyedQueue } from '#lib/keyed-queue.ts'
import type { Log } from '#lib/log.ts'
import type { Service } from '#lib/service.ts'
import { nameSource } from '#lib/source-name.ts'
import type { EventKind } from '#machine/event.ts'
import type { EventLog, ImageStore, Images, SignedManifest, StoredImage } from '#machine/ports.ts'
import { isSameBuild } from './build-manifest.ts'
import { findProblems, findQuickProblems } from './check-image.ts'
import { storedImageOf } from './image-record.ts'
import { importImage } from './import-image.ts'
import { compareImages } from './newest.ts'
import { renewKey } from './renew-key.ts'
import { createManifestSigner } from './signed-manifests.ts'
import { openSigningKey, type SigningKey } from './signing-key.ts'
import { findStartImage } from './start-image.ts'
import { noSuchImage, StoreFolder } from './store-folder.ts'

export interface ImageStoreOptions {
  readonly directory: string
  readonly keysDirectory: string
  /** An image's folder, or a folder of such folders: the newest is imported by `start` when it is not here. */
  readonly importAtStart?: string
  readonly events: Pick<EventLog, 'append'>
  readonly clock: Clock
  readonly log: Log
}

/** Empty until it is started. `start` throws KitError for a folder or a key that cannot be used, not for an image. */
export function createImageStore(options: ImageStoreOptions): ImageStore & Images & Service {
  return new KeptImages(options)
}

interface Signing {
  readonly key: SigningKey
  readonly manifestOf: (image: StoredImage) => SignedManifest
}

class KeptImages implements ImageStore, Images, Service {
  readonly name = 'images'
  readonly #options: ImageStoreOptions
  readonly #folder: StoreFolder
  readonly #jobs = new ImportJobs<{ readonly version: string }>({
    what: 'the image',
    describe: ({ version }) => `image ${version}`,
  })
  readonly #listeners = new Set<(imported?: string) => void>()
  readonly #stopping = new AbortController()
  readonly #refreshes = createKeyedQueue<'refresh'>()
  /** Newest first; without those whose files are not all there. */
  #images: readonly StoredImage[] = []
  #named: string | undefined
  #signing: Signing | undefined
  #noting: Promise<void> = Promise.resolve()
  /** Told once, not at every change. */
  readonly #toldDamage = new Map<string, string>()

  constructor(options: ImageStoreOptions) {
    this.#options = options
    this.#folder = new StoreFolder(options.directory)
  }

  async start(): Promise<void> {
    const { clock, keysDirectory, log } = this.#options
    const key = await openSigningKey(keysDirectory, log)
    const broken = await this.#folder.load(clock.nowMs()).catch((cause: unknown) => {
      const message = `Cannot use the image store ${this.#options.directory}: ${describeError(cause)}`
      throw new KitError('unavailable', message, {
        fix: 'set images/directory to a folder that can be written',
        cause,
      })
    })
    for (const { version, file, message } of broken) await this.#noteDamage(version, [`${file}: ${message}`])
    this.#signing = { key, manifestOf: await this.#makeSigner(key) }
    await this.#renewKeys(key)
    await this.#refresh()
    await this.#importAtStart()
    const newest = this.#images[0]?.version
    if (newest === undefined) log.warn({}, 'there is no image: machines wait until one is imported')
    else log.info({ images: this.#images.length }, `the newest image is ${newest}`)
  }

  /** Ends a running import; what it has downloaded is kept. */
  async stop(): Promise<void> {
    this.#stopping.abort()
    await this.#jobs.settle()
    await this.#noting
  }

  list(): readonly StoredImage[] {
    return this.#images
  }

  find(version: string): StoredImage | undefined {
    return this.#images.find((image) => image.version === version)
  }

  current(): StoredImage | undefined {
    return this.#images[0]
  }

  named(): StoredImage | undefined {
    return this.#named === undefined ? undefined : this.find(this.#named)
  }

  manifest(version: string) {
    const image = this.find(version)
    return image === undefined ? undefined : this.#signing?.manifestOf(image)
  }

  startImport(source: string): string {
    const run = async (onProgress: OnProgress) => ({ version: await this.#import(source, onProgress) })
    return this.#jobs.start({ source, run })
  }

  importProgress(id: string) {
    return this.#jobs.progress(id)
  }

  async importDone(id: string): Promise<string> {
    return (await this.#jobs.done(id)).version
  }

  async verify(version: string): Promise<readonly string[]> {
    const record = this.#folder.find(version)
    if (record === undefined) throw noSuchImage(version)
    const problems = await findProblems(storedImageOf(record, (sha256) => this.#folder.fileOf(sha256)))
    if (problems.length > 0) await this.#noteDamage(version, problems)
    return problems
  }

  async remove(version: string, why?: string): Promise<void> {
    await this.#folder.remove(version)
    this.#toldDamage.delete(version)
    await this.#refresh()
    const because = why === undefined ? '' : `: ${why}`
    await this.#tell('image-removed', `image ${version} was removed${because}`, { version })
  }

  onChange(listener: (imported?: string) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  async #import(source: string, onProgress: OnProgress): Promise<string> {
    const { clock, log } = this.#options
    const startMs = clock.monotonicMs()
    const key = this.#signing?.key
    if (key === undefined) throw new KitError('unavailable', 'Cannot import an image: the server is starting')
    try {
      const signal = this.#stopping.signal
      const name = await nameSource(source, SOURCES)
      const { record, isKnown } = await importImage(name, {
        store: this.#folder,
        key,
        clock,
        signal,
        onProgress,
      })
      const { version } = record.build
      this.#toldDamage.delete(version)
      await this.#refresh(version)
      const seconds = Math.round((clock.monotonicMs() - startMs) / 100) / 10
      const data = { version, source: name.shown, seconds }
      if (isKnown) log.info(data, `image ${version} was here already`)
      else await this.#tell('image-imported', `image ${version} came from ${name.shown}`, data)
      return version
    } catch (error) {
      log.error({ err: error, fix: error instanceof KitError ? error.fix : undefined }, describeError(error))
      throw error
    }
  }

  /** Takes over what the folder holds now. */
  async #refresh(imported?: string): Promise<void> {
    await this.#refreshes.run('refresh', async () => {
      const whole: StoredImage[] = []
      for (const record of this.#folder.records) {
        const image = storedImageOf(record, (sha256) => this.#folder.fileOf(sha256))
        const problems = await findQuickProblems(image)
        if (problems.length === 0) whole.push(image)
        else await this.#noteDamage(image.version, problems)
      }
      this.#images = whole.sort(compareImages)
    })
    for (const listener of this.#listeners) listener(imported)
  }

  async #renewKeys(key: SigningKey): Promise<void> {
    const nowMs = this.#options.clock.nowMs()
    for (const record of this.#folder.records) {
      if (record.keyNumber === key.number) continue
      const { version } = record.build
      const isRenewed = await renewKey(record, { store: this.#folder, key, nowMs })
      if (isRenewed) this.#options.log.info({ version }, `image ${version} got the new signing key`)
      else await this.#noteDamage(version, ['initrd.img is damaged: it cannot get the new signing key'])
    }
  }

  /** The server also starts without it: machines that have an image must not wait for one that is broken. */
  async #importAtStart(): Promise<void> {
    const { importAtStart, log, clock } = this.#options
    if (importAtStart === undefined) return
    const found = await findStartImage(importAtStart, (problem) =>
      log.error({ fix: problem.fix }, problem.message),
    )
    if (found === undefined) return
    const { version } = found.build
    const record = this.#folder.find(version)
    const isHere =
      record !== undefined && isSameBuild(record.build, found.build) && this.find(version) !== undefined
    const isImported =
      isHere ||
      (await this.importDone(this.startImport(found.folder)).then(
        () => true,
        () => false, // told by the import
      ))
    if (!isImported) return
    this.#named = version
    if ((await this.#readNote(STARTED_WITH)) === version) return
    // Another one than last time, and not new: somebody has gone back to it, and shall get it.
    if (isHere && this.#images[0]?.version !== version) {
      await this.#folder.rewrite({ ...record, importedMs: clock.nowMs() })
      await this.#refresh()
    }
    await this.#writeNote(STARTED_WITH, version)
  }

  async #makeSigner(key: SigningKey): Promise<Signing['manifestOf']> {
    const { clock, log } = this.#options
    const lastSigned = Number.parseInt((await this.#readNote(LAST_SIGNED)) ?? '', 10) || 0
    const onSigned = (seconds: number) => {
      this.#noting = this.#noting.then(() => this.#writeNote(LAST_SIGNED, String(seconds)))
    }
    return createManifestSigner({ key, clock, log, lastSigned, onSigned })
  }

  async #readNote(name: string): Promise<string | undefined> {
    const text = await readFile(join(this.#options.directory, name), 'utf8').catch(() => '')
    return text.trim() === '' ? undefined : text.trim()
  }

  /** Never throws: what is noted makes things better and is needed by none. */
  async #writeNote(name: string, text: string): Promise<void> {
    const file = join(this.#options.directory, name)
    await writeFileAtomically(file, `${text}\n`).catch((error: unknown) =>
      this.#options.log.warn({ err: error }, `Cannot write ${file}`),
    )
  }

  async #noteDamage(version: string, problems: readonly string[]): Promise<void> {
    const text = problems.join('; ')
    if (this.#toldDamage.get(version) === text) return
    this.#toldDamage.set(version, text)
    const fix = 'import it again: kateskit image import'
    this.#options.log.error({ version, problems, fix }, `image ${version} is damaged`)
    await this.#tell('image-damaged', `image ${version} is damaged: ${text}`, { version, problems: text })
  }

  /** What has happened has happened, also when nobody can write it down. */
  async #tell(kind: EventKind, message: string, data: Record<string, string | number>): Promise<void> {
    await this.#options.events.append({ kind, message, data }).catch((error: unknown) => {
      this.#options.log.error({ err: error, kind }, 'Cannot write down what happened to an image')
    })
  }
}

const SOURCES = "name the built image's folder, a tar of it, or the URL of either, as the server sees it"

/** The version that images/import named at the last start. */
const STARTED_WITH = 'started-with'
/** When a manifest was signed last, in seconds since 1970. */
const LAST_SIGNED = 'last-signed'
