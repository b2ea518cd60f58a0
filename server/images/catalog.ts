// The images on this server: read from a folder of built images, looked up by version.

import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'

import { type Clock, systemClock } from '#lib/clock.ts'
import { KitError, systemErrorCode } from '#lib/errors.ts'
import type { Log } from '#lib/log.ts'
import type { Images } from '#machine/ports.ts'

import { type FoundImage, findImage } from './manifest.ts'
import { compareImages } from './newest.ts'

export interface ImageCatalogOptions {
  /** One image's folder, or a folder of such folders. */
  readonly directory: string
  readonly log: Log
  readonly clock?: Clock
}

export interface ImageCatalog extends Images {
  /** Reads the folder again. A folder that cannot be used is logged, returned and passed over; the others count. */
  reload(): readonly KitError[]
}

interface Reading {
  readonly images: readonly FoundImage[]
  readonly problems: readonly KitError[]
  readonly sign: FolderSign
  readonly atMs: number
}

/**
 * An image that is being copied here has its folder long before its last byte, which no folder's time tells: what is in
 * error, or changed within a tick of the file system's clock, is looked at again.
 */
const AGAIN_AFTER_MS = 1000
const TICK_MS = 2000

/**
 * Reads the folder before it returns, and again when something in it has changed: an image built while the server runs
 * is offered to the next machine. A folder without images is no error: machines wait until there is one.
 */
export function createImageCatalog({
  directory,
  log,
  clock = systemClock,
}: ImageCatalogOptions): ImageCatalog {
  const read = (before?: Reading): Reading => {
    const sign = signFolder(directory) // before reading: what changes meanwhile is read next time
    const { found, problems } = readImages(directory)
    const reading = { images: found.toSorted(compareImages), problems, sign, atMs: clock.nowMs() }
    logNews(log, directory, { before, reading })
    return reading
  }
  let last = read()
  /** A few stats per question, some microseconds each; no watcher that would need an owner. */
  const fresh = () => {
    const isUnsettled = last.problems.length > 0 || last.sign.changedMs >= last.atMs - TICK_MS
    const isDue = isUnsettled && Math.abs(clock.nowMs() - last.atMs) >= AGAIN_AFTER_MS
    if (isDue || signFolder(directory).text !== last.sign.text) last = read(last)
    return last.images
  }

  return {
    current: () => fresh()[0],
    find: (version) => fresh().find((image) => image.version === version),
    reload() {
      last = read()
      return last.problems
    },
  }
}

interface FolderSign {
  /** Another one when a file or folder was made in, renamed in or removed from the folder or an image's folder. */
  readonly text: string
  readonly changedMs: number
}

function signFolder(directory: string): FolderSign {
  const times = candidates(directory, []).map((folder) => {
    const mtimeMs = statSync(folder, { throwIfNoEntry: false })?.mtimeMs ?? 0
    return { text: `${folder}\0${mtimeMs}`, mtimeMs }
  })
  return {
    text: times.map(({ text }) => text).join('\0'),
    changedMs: Math.max(0, ...times.map(({ mtimeMs }) => mtimeMs)),
  }
}

/** Each problem, and which image machines get, once until it is another. */
function logNews(
  log: Log,
  directory: string,
  { before, reading }: { before: Reading | undefined; reading: Reading },
): void {
  const known = new Set(before?.problems.map(({ message }) => message))
  for (const problem of reading.problems) {
    if (!known.has(problem.message)) log.error({ directory, fix: problem.fix }, problem.message)
  }
  const version = reading.images[0]?.version
  if (before !== undefined && before.images[0]?.version === version) return
  if (version !== undefined) log.info({ directory, version }, `machines get image ${version}`)
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
