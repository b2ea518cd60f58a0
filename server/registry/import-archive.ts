// One import, from its source to names in the registry: everything is verified before anything counts.

import { rm } from 'node:fs/promises'
import { join } from 'node:path'

import type { Clock } from '#lib/clock.ts'
import { download } from '#lib/download.ts'
import { KitError, systemErrorCode } from '#lib/errors.ts'
import type { OnProgress } from '#lib/import-jobs.ts'
import type { SourceName } from '#lib/source-name.ts'
import { formatReference, type ImageReference } from '#machine/image-reference.ts'

import { type Archive, type ArchiveOptions, noSpace } from './archive.ts'
import { openFolder } from './archive-folder.ts'
import { openTar } from './archive-tar.ts'
import { walkImage } from './image-graph.ts'
import { readContents } from './layout.ts'
import { nameImages } from './naming.ts'
import { DOWNLOADED, keepDownload, type RegistryFolder } from './registry-folder.ts'

export interface ImportOptions {
  readonly folder: RegistryFolder
  /** In place of the archive's own name. */
  readonly asked?: ImageReference
  readonly clock: Clock
  readonly signal: AbortSignal
  readonly onProgress: OnProgress
}

/** Shares of the time: fetching where it must be, then reading, then the disk. */
const FETCHED_PERCENT = 50
const READ_PERCENT = 90

/** Resolves with the names. Throws KitError. An interrupted download is kept for the next attempt; of any other failure nothing is left. */
export async function importArchive(source: SourceName, options: ImportOptions): Promise<readonly string[]> {
  const { folder, clock, signal } = options
  await folder.dropLeftovers(clock.nowMs())
  const incoming = await folder.openIncoming(source.key, clock.nowMs())
  try {
    signal.throwIfAborted()
    const references = await bringIn(source, incoming, options)
    await rm(incoming, { recursive: true, force: true })
    return references
  } catch (error) {
    const isInterrupted = signal.aborted || (error instanceof KitError && error.code === 'unavailable')
    const isKept = source.kind === 'web' && isInterrupted && (await keepDownload(incoming))
    if (!isKept) await rm(incoming, { recursive: true, force: true })
    throw asImportError(error, source, options)
  }
}

async function bringIn(
  source: SourceName,
  incoming: string,
  options: ImportOptions,
): Promise<readonly string[]> {
  const { folder, asked, clock, signal, onProgress } = options
  const { shown } = source
  const archive = await openArchive(source, incoming, options)
  const contents = await readContents(archive, { shown, incoming, signal, onRead: () => {} })
  const named = nameImages(contents.images, asked, shown)
  const blobs = new Map<string, string>()
  for (const { reference, descriptor } of named) {
    onProgress(READ_PERCENT, formatReference(reference))
    const graph = await walkImage(descriptor, contents, `${formatReference(reference)} of ${shown}`)
    for (const sha256 of graph.blobs.keys()) {
      const found = contents.fileOf(sha256)
      if (found !== undefined) blobs.set(sha256, found.file)
    }
  }
  signal.throwIfAborted()
  onProgress(READ_PERCENT, 'writing to the disk')
  await folder.add(named, blobs, clock.nowMs())
  return named.map(({ reference }) => formatReference(reference))
}

async function openArchive(source: SourceName, incoming: string, options: ImportOptions): Promise<Archive> {
  const { location, shown } = source
  const { signal, clock, onProgress } = options
  const meter = (from: number, to: number, text: string) => (bytes: number, ofBytes?: number) => {
    const share = ofBytes === undefined ? 0 : Math.min(bytes / Math.max(ofBytes, 1), 1)
    onProgress(Math.floor(from + (to - from) * share), text)
  }
  const reading = (from: number): ArchiveOptions => ({
    ...{ shown, incoming, signal },
    onRead: meter(from, READ_PERCENT, 'reading it'),
  })
  switch (source.kind) {
    case 'folder':
      return openFolder(location, reading(0))
    case 'tar':
      return openTar(location, reading(0))
    case 'web': {
      const file = join(incoming, DOWNLOADED)
      await download(new URL(location), file, {
        signal,
        clock,
        onBytes: meter(0, FETCHED_PERCENT, 'fetching it'),
      })
      return openTar(file, reading(FETCHED_PERCENT))
    }
    default:
      return source.kind satisfies never
  }
}

function asImportError(error: unknown, { shown }: SourceName, { folder, signal }: ImportOptions): KitError {
  if (signal.aborted) {
    return new KitError('unavailable', `Cannot go on importing ${shown}: the server was asked to stop`, {
      fix: 'start the import again when it runs',
    })
  }
  if (error instanceof KitError) return error
  const code = systemErrorCode(error)
  if (code === 'ENOSPC' || code === 'EDQUOT') return noSpace(folder.directory, error)
  const why = code ?? 'something went wrong that nobody thought of'
  return new KitError(code === undefined ? 'internal' : 'unavailable', `Cannot import ${shown}: ${why}`, {
    cause: error,
  })
}
