// An image on a web server: the URL of its folder's manifest.json, or of a tar.

import { rename } from 'node:fs/promises'
import { join } from 'node:path'

import { download } from '#lib/download.ts'
import type { ImageSource, SourceOptions } from './image-source.ts'
import { MANIFEST, MANIFEST_MAX_BYTES, readManifestFile } from './source-folder.ts'
import { tarSource } from './source-tar.ts'

export interface WebOptions extends SourceOptions {
  readonly shown: string
}

/** A URL that ends in `/` or `.json` is a folder's; any other is a tar's. */
export function webSource(url: URL, options: WebOptions): ImageSource {
  if (url.pathname.endsWith('/')) return folderOf(new URL(MANIFEST, url), options)
  return url.pathname.endsWith('.json') ? folderOf(url, options) : tarOf(url, options)
}

function folderOf(manifestUrl: URL, { incoming, signal, clock, onRead }: WebOptions): ImageSource {
  const manifest = join(incoming, 'manifest.part')
  return {
    canResume: true,
    async readManifest() {
      await download(manifestUrl, manifest, { signal, clock, maxBytes: MANIFEST_MAX_BYTES, isAnew: true })
      return readManifestFile(manifest)
    },
    async fetch({ name, sizeBytes }, target) {
      const url = new URL(name, manifestUrl)
      url.search = manifestUrl.search // a signed link's
      const part = `${target}.part`
      await download(url, part, {
        signal,
        clock,
        maxBytes: sizeBytes,
        onBytes: (bytes) => onRead(bytes, sizeBytes),
      })
      await rename(part, target)
    },
  }
}

/** Fetched whole before it is unpacked: so an interrupted download goes on where it stopped. */
function tarOf(url: URL, options: WebOptions): ImageSource {
  const { incoming, signal, clock, onRead } = options
  const file = join(incoming, 'archive.part')
  // Most of the time goes into the download; unpacking is not counted.
  const unpacked = tarSource(file, { ...options, onRead: () => {} })
  return {
    canResume: true,
    async readManifest() {
      await download(url, file, { signal, clock, onBytes: onRead })
      return unpacked.readManifest()
    },
    fetch: unpacked.fetch,
  }
}
