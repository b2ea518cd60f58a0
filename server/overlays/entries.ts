// What an overlay consists of: one entry per path, as one layer gives it.

import type { Stats } from 'node:fs'

import type { LayerName } from '#machine/profile.ts'

interface EntryBase {
  /** Without a leading slash: `etc/motd`. */
  readonly path: string
  readonly layer: LayerName
}

interface Attributes {
  readonly mode: number
  readonly uid: number
  readonly gid: number
}

/** A file as it was when it was looked at. It is read only when the archive is written. */
export interface FileEntry extends EntryBase, Attributes {
  readonly kind: 'file'
  readonly source: string
  readonly stats: FileStats
}

export interface DirectoryEntry extends EntryBase, Attributes {
  readonly kind: 'directory'
  /**
   * - `root`: it stands in root/, which says nothing of its mode and owner
   * - `attributes`: root.attributes says its mode and owner
   * - `implied`: it is only there because a line of root.attributes puts something into it
   */
  readonly from: 'root' | 'attributes' | 'implied'
}

export interface SymlinkEntry extends EntryBase, Attributes {
  readonly kind: 'symlink'
  readonly target: string
}

/** The path of the image is to be hidden. */
export interface DeleteEntry extends EntryBase {
  readonly kind: 'delete'
}

export type Entry = FileEntry | DirectoryEntry | SymlinkEntry | DeleteEntry

/** By these it is seen that a file is still the one that was looked at. */
export type FileStats = Pick<Stats, 'dev' | 'ino' | 'size' | 'mtimeMs' | 'ctimeMs'>

export function isSameFile(a: FileStats, b: FileStats): boolean {
  return (
    a.dev === b.dev &&
    a.ino === b.ino &&
    a.size === b.size &&
    a.mtimeMs === b.mtimeMs &&
    a.ctimeMs === b.ctimeMs
  )
}

/** By bytes, not by letters: the same on every machine and in every locale. Parents come before what lies in them. */
export function comparePaths(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b))
}

/** `a/b/c` → `a`, `a/b` */
export function parentsOf(path: string): readonly string[] {
  const parts = path.split('/').slice(0, -1)
  return parts.map((_, index) => parts.slice(0, index + 1).join('/'))
}
