// Where an image is imported from, behind one interface: a folder, a tar, a web server.

import type { Clock } from '#lib/clock.ts'
import type { SourceName } from '#lib/source-name.ts'

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
