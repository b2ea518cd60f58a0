// The images on this server: read from a folder of built images, looked up by version.

import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'

import { KitError, systemErrorCode } from '#lib/errors.ts'
import type { Log } from '#lib/log.ts'
import type { Image, Images } from '#machine/ports.ts'

import { type FoundImage, findImage } from './manifest.ts'
import { compareImages } from './newest.ts'

export interface ImageCatalogOptions {
  /** One image's folder, or a folder of such folders. */
  readonly directory: string
  readonly log: Log
}

export interface ImageCatalog extends Images {
  /** Reads the folder again. A folder that cannot be used is logged, returned and passed over; the others count. */
  reload(): readonly KitError[]
}

/**
 * Reads the folder before it returns, and again when something has appeared in it or gone: an image built while the
 * server runs is offered to the next machine. A folder without images is no error: machines wait until there is one.
 */
export function createImageCatalog({ directory, log }: ImageCatalogOptions): ImageCatalog {
  let images: readonly FoundImage[] = []
  let readMtimeMs: number | undefined

  const reload = () => {
    readMtimeMs = mtimeOf(directory) // before reading: what changes meanwhile is read next time
    const { found, problems } = readImages(directory)
    images = found.toSorted(compareImages)
    for (const problem of problems) log.error({ directory, fix: problem.fix }, problem.message)
    logCurrent(log, directory, images[0])
    return problems
  }
  /** One stat per question, some microseconds; no watcher that would need an owner. */
  const fresh = () => {
    if (mtimeOf(directory) !== readMtimeMs) reload()
    return images
  }

  reload()
  return {
    current: () => fresh()[0],
    find: (version) => fresh().find((image) => image.version === version),
    reload,
  }
}

function mtimeOf(directory: string): number | undefined {
  return statSync(directory, { throwIfNoEntry: false })?.mtimeMs
}

function logCurrent(log: Log, directory: string, image: Image | undefined): void {
  if (image) log.info({ directory, version: image.version }, `machines get image ${image.version}`)
  else log.warn({ directory }, `Cannot offer an image: none in ${directory}`)
}

function readImages(directory: string): { found: FoundImage[]; problems: KitError[] } {
  const found: FoundImage[] = []
  const problems: KitError[] = []
  for (const candidate of candidates(directory, problems)) {
    try {
      const image = findImage(candidate)
      if (image) found.push(image)
    } catch (error) {
      if (!(error instanceof KitError)) throw error
      problems.push(error)
    }
  }
  return { found, problems }
}

/** The folder itself and the folders in it; `<name>.new.<random>` is one that build.sh is still filling. */
function candidates(directory: string, problems: KitError[]): readonly string[] {
  try {
    const entries = readdirSync(directory, { withFileTypes: true })
    const names = entries
      .filter((entry) => !entry.isFile() && !entry.name.includes('.new.'))
      .map(({ name }) => name)
    return [directory, ...names.map((name) => join(directory, name))]
  } catch (error) {
    const code = systemErrorCode(error)
    if (code !== 'ENOENT') {
      const message = `Cannot read the image folder ${directory}: ${code ?? 'unknown error'}`
      problems.push(new KitError('unavailable', message, { cause: error }))
    }
    return []
  }
}
