// Where an image is imported from, behind one interface: a folder, a tar, a web server.

import { createHash } from 'node:crypto'
import { realpath, stat } from 'node:fs/promises'
import { isAbsolute } from 'node:path'

import type { Clock } from '#lib/clock.ts'
import { KitError, systemErrorCode } from '#lib/errors.ts'

import type { BuildFile } from './build-manifest.ts'
import { folderSource } from './source-folder.ts'
import { tarSource } from './source-tar.ts'
import { webSource } from './source-web.ts'

export interface ImageSource {
  /** The text of its manifest.json. Called once, before the rest. Throws KitError. */
  readManifest(): Promise<string>
  /** Puts the file at `target`, complete or not at all. What it holds is the caller's to check. Throws KitError. */
  fetch(entry: BuildFile, target: string): Promise<void>
  /** An interrupted import is worth going on with: what was fetched is kept. */
  readonly canResume: boolean
}

export interface SourceOptions {
  /** A folder of this import's own; the same one when it is tried again. */
  readonly incoming: string
  readonly signal: AbortSignal
  readonly clock: Clock
  /** So much of the file at hand has been read; `ofBytes` is absent where nobody knows. */
  readonly onRead: (bytes: number, ofBytes?: number) => void
}

/** How one source is called, so that two imports of it are one and a second attempt finds what the first has left. */
export interface SourceName {
  readonly kind: 'folder' | 'tar' | 'web'
  /** Safe to show. */
  readonly shown: string
  readonly location: string
  /** The name of its folder in incoming/. */
  readonly key: string
}

/** Throws KitError for what cannot be a source. Reads nothing of it yet. */
export async function nameSource(source: string): Promise<SourceName> {
  const key = (location: string) => createHash('sha256').update(location).digest('hex').slice(0, 32)
  if (/^https?:\/\//i.test(source)) {
    const url = parseUrl(source)
    const shown = new URL(url)
    shown.username = ''
    shown.password = ''
    shown.search = '' // a signed link's secret
    return { kind: 'web', shown: shown.href, location: url.href, key: key(url.href) }
  }
  const cannot = (why: string) =>
    new KitError('invalid-input', `Cannot import ${JSON.stringify(source)}: ${why}`, {
      fix: "name the built image's folder, a tar of it, or the URL of either, as the server sees it",
    })
  if (!isAbsolute(source)) throw cannot('it is neither an absolute path nor an http(s) URL')
  try {
    const location = await realpath(source)
    const found = await stat(location)
    if (!found.isDirectory() && !found.isFile()) throw cannot('it is neither a folder nor a file')
    return { kind: found.isDirectory() ? 'folder' : 'tar', shown: source, location, key: key(location) }
  } catch (error) {
    const code = systemErrorCode(error)
    if (code === undefined || error instanceof KitError) throw error
    throw cannot(code === 'ENOENT' || code === 'ENOTDIR' ? 'there is no such file or folder' : code)
  }
}

function parseUrl(text: string): URL {
  const url = URL.parse(text)
  if (url === null) throw new KitError('invalid-input', `Cannot import ${JSON.stringify(text)}: it is no URL`)
  url.hash = ''
  return url
}

export function openSource({ kind, location, shown }: SourceName, options: SourceOptions): ImageSource {
  switch (kind) {
    case 'folder':
      return folderSource(location, options)
    case 'tar':
      return tarSource(location, { ...options, shown })
    case 'web':
      return webSource(new URL(location), { ...options, shown })
    default:
      return kind satisfies never
  }
}
