// The registry of container images: kept by digest, imported from archives, read by machines and changed by people only.

import { join } from 'node:path'

import type { Clock } from '#lib/clock.ts'
import { describeError, KitError } from '#lib/errors.ts'
import { ImportJobs, type OnProgress } from '#lib/import-jobs.ts'
import type { Log } from '#lib/log.ts'
import type { Service } from '#lib/service.ts'
import { nameSource } from '#lib/source-name.ts'
import { formatReference, parseReference } from '#machine/image-reference.ts'
import type {
  ContainerImage,
  ContainerRegistry,
  RegistryImported,
  RegistryVerdict,
} from '#machine/registry-ports.ts'

import { importArchive } from './import-archive.ts'
import { withTag } from './naming.ts'
import { type KeptImage, noSuchImage, RegistryFolder } from './registry-folder.ts'
import { findServed, type Repositories, repositoriesOf } from './repositories.ts'
import { type FoundArchive, findArchives, ImportNotes } from './start-imports.ts'

export interface RegistryOptions {
  readonly directory: string
  /** A folder of archives: those that were not imported yet are, by `start`. */
  readonly importFrom?: string
  readonly clock: Clock
  readonly log: Log
}

/** Empty until it is started. `start` throws KitError for a folder that cannot be used, not for an image or an archive. */
export function createRegistry(options: RegistryOptions): ContainerRegistry & Service {
  return new KeptRegistry(options)
}

const SOURCES =
  'name an OCI image layout (folder or tar), a tar that docker save wrote, or the URL of one, as the server sees it'
/** An import at start shows how far it is so often. */
const TOLD_EVERY_MS = 5_000

class KeptRegistry implements ContainerRegistry, Service {
  readonly name = 'registry'
  readonly #options: RegistryOptions
  readonly #folder: RegistryFolder
  readonly #notes: ImportNotes
  readonly #jobs = new ImportJobs<RegistryImported>({
    what: 'these container images',
    describe: ({ references }) => references.join(', '),
  })
  readonly #stopping = new AbortController()
  #repositories: Repositories = new Map()

  constructor(options: RegistryOptions) {
    this.#options = options
    this.#folder = new RegistryFolder(options.directory)
    this.#notes = new ImportNotes(join(options.directory, 'imported'))
  }

  async start(): Promise<void> {
    const { clock, directory, log } = this.#options
    const problems = await this.#folder.load(clock.nowMs()).catch((cause: unknown) => {
      const message = `Cannot use the registry's folder ${directory}: ${describeError(cause)}`
      throw new KitError('unavailable', message, {
        fix: 'set registry/directory to a folder that can be written',
        cause,
      })
    })
    const fix = 'import it again: kateskit registry import'
    for (const problem of problems) log.error({ problem, fix }, `a container image is damaged: ${problem}`)
    this.#serve()
    await this.#importAtStart()
    log.info({ images: this.#folder.images.length }, 'the registry is open')
  }

  /** Ends a running import; what it has downloaded is kept. */
  async stop(): Promise<void> {
    this.#stopping.abort()
    await this.#jobs.settle()
  }

  list(): readonly ContainerImage[] {
    return this.#folder.images.map(viewOf)
  }

  repositories(): readonly string[] {
    return [...this.#repositories.keys()]
  }

  repository(name: string, host?: string) {
    return findServed(this.#repositories, name, host)
  }

  startImport(source: string, name?: string): string {
    return this.#start(source, name, () => {})
  }

  importProgress(id: string) {
    return this.#jobs.progress(id)
  }

  async importDone(id: string): Promise<readonly string[]> {
    return (await this.#jobs.done(id)).references
  }

  async remove(reference: string): Promise<void> {
    const name = nameOf(reference)
    await this.#folder.remove(name)
    this.#serve()
    this.#options.log.info({ reference: name }, `container image ${name} was removed`)
  }

  async verify(reference?: string): Promise<readonly RegistryVerdict[]> {
    const images = reference === undefined ? this.#folder.images : [this.#existing(nameOf(reference))]
    const verdicts: RegistryVerdict[] = []
    for (const image of images) {
      const problems = await this.#folder.check(image)
      verdicts.push({ reference: image.reference, problems })
      if (problems.length > 0)
        this.#options.log.error({ problems }, `container image ${image.reference} is damaged`)
    }
    return verdicts
  }

  #existing(name: string): KeptImage {
    const image = this.#folder.find(name)
    if (image === undefined) throw noSuchImage(name)
    return image
  }

  #start(source: string, name: string | undefined, onProgress: OnProgress): string {
    return this.#jobs.start({
      source: JSON.stringify([source, name]),
      run: async (tell) => {
        const both: OnProgress = (percent, text) => {
          tell(percent, text)
          onProgress(percent, text)
        }
        return { references: await this.#import(source, name, both) }
      },
    })
  }

  async #import(
    source: string,
    name: string | undefined,
    onProgress: OnProgress,
  ): Promise<readonly string[]> {
    const { clock, log } = this.#options
    const startMs = clock.monotonicMs()
    try {
      const asked = name === undefined ? undefined : parseReference(name)
      const named = await nameSource(source, SOURCES)
      const references = await importArchive(named, {
        ...{ folder: this.#folder, clock, onProgress, signal: this.#stopping.signal },
        ...(asked !== undefined && { asked }),
      })
      this.#serve()
      const seconds = Math.round((clock.monotonicMs() - startMs) / 100) / 10
      log.info({ references, source: named.shown, seconds }, `container images came from ${named.shown}`)
      return references
    } catch (error) {
      log.error({ err: error, fix: error instanceof KitError ? error.fix : undefined }, describeError(error))
      throw error
    }
  }

  /** The server also starts without them: one archive that is broken must not keep it from serving the others. */
  async #importAtStart(): Promise<void> {
    const { importFrom, log } = this.#options
    if (importFrom === undefined) return
    const archives = await findArchives(importFrom).catch((error: unknown) => {
      const fix = 'set registry/import to a folder that the server may read'
      log.error({ err: error, fix }, `Cannot read ${importFrom}: ${describeError(error)}`)
      return []
    })
    for (const [index, archive] of archives.entries()) {
      if (this.#stopping.signal.aborted) return
      if (await this.#isImported(archive)) continue
      log.info({ source: archive.source }, `importing container images, ${index + 1} of ${archives.length}`)
      const id = this.#start(archive.source, undefined, this.#teller(archive.source))
      await this.importDone(id).then(
        (references) => this.#notes.write(archive, references),
        () => {}, // told by the import
      )
    }
  }

  /** Once; what a person has removed since does not come back by itself, what is damaged does. */
  async #isImported(archive: FoundArchive): Promise<boolean> {
    const references = await this.#notes.find(archive)
    return references?.every((reference) => this.#folder.find(reference)?.problem === undefined) ?? false
  }

  #teller(source: string): OnProgress {
    const { clock, log } = this.#options
    let toldMs = clock.monotonicMs()
    return (percent, text) => {
      if (clock.monotonicMs() - toldMs < TOLD_EVERY_MS) return
      toldMs = clock.monotonicMs()
      log.info({ source, percent }, `importing container images: ${percent} %, ${text}`)
    }
  }

  #serve(): void {
    this.#repositories = repositoriesOf(this.#folder.images, (sha256) => this.#folder.fileOf(sha256))
  }
}

function nameOf(text: string): string {
  return formatReference(withTag(parseReference(text)))
}

function viewOf({ reference, root, importedMs, graph, problem }: KeptImage): ContainerImage {
  const sizeBytes = [...(graph?.blobs.values() ?? [])].reduce((sum, bytes) => sum + bytes, 0)
  return {
    ...{ reference, digest: root.digest, sizeBytes, platforms: graph?.platforms ?? [], importedMs },
    ...(problem !== undefined && { problem }),
  }
}
