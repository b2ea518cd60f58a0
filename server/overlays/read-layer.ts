// Looking at one layer's `root/` and `root.attributes`, or `secret/` and its own: what goes where, without reading files yet.

import { createHash } from 'node:crypto'
import type { Stats } from 'node:fs'
import { lstat, readdir, readlink } from 'node:fs/promises'
import { join } from 'node:path'

import { describeError, systemErrorCode } from '#lib/errors.ts'
import { FlatFileError, readFlatFile } from '#lib/flat-file.ts'
import type { ProfileProblem } from '#machine/ports.ts'
import type { LayerName } from '#machine/profile.ts'

import { applyAttributes } from './apply-attributes.ts'
import { type ParsedAttributes, parseAttributes } from './attributes.ts'
import { comparePaths, type Entry, type FileEntry } from './entries.ts'
import { type LayerPart, type PlacedFile, ROOT_PART } from './layer-part.ts'
import { refusePath } from './reserved-paths.ts'

export interface LayerDirectory {
  readonly layer: LayerName
  readonly directory: string
}

export interface OverlayLayer extends LayerDirectory {
  /** Which of its folders was looked at. */
  readonly part: LayerPart
  /** By path. */
  readonly entries: ReadonlyMap<string, Entry>
  readonly problems: readonly ProfileProblem[]
  /** Nothing can be said of it: its folder, or one in it, could not be listed. */
  readonly isUnreadable: boolean
  /** Changes whenever anything of the layer does, file contents included. Empty when it has no overlay. */
  readonly signature: string
  /** The latest change of anything in it, as the file system's clock tells it; milliseconds since 1970. */
  readonly changedMs: number
}

/** Never throws: whatever is wrong becomes a problem. */
export async function readOverlayLayer(place: LayerDirectory, part = ROOT_PART): Promise<OverlayLayer> {
  const walk = new Walk(place, part)
  try {
    // A layer's folder that is gone is not a layer without an overlay.
    await lstat(place.directory)
    await walk.readRoot()
    await walk.readAttributes()
  } catch (error) {
    walk.report(place.directory, `Cannot read the layer: ${describeError(error)}`)
    walk.isUnreadable = true
  }
  return walk.result()
}

type Place = Pick<FileEntry, 'path' | 'mode'>

class Walk {
  isUnreadable = false
  readonly #place: LayerDirectory
  readonly #part: LayerPart
  readonly #entries = new Map<string, Entry>()
  readonly #problems: ProfileProblem[] = []
  readonly #signature = createHash('sha256')
  #isSigned = false
  #changedMs = 0

  constructor(place: LayerDirectory, part: LayerPart) {
    this.#place = place
    this.#part = part
  }

  report(file: string, message: string): void {
    this.#problems.push({ layer: this.#place.layer, file, message })
  }

  result(): OverlayLayer {
    return {
      ...this.#place,
      part: this.#part,
      entries: this.#entries,
      problems: this.#problems,
      isUnreadable: this.isUnreadable,
      signature: this.#isSigned ? this.#signature.digest('hex') : '',
      changedMs: this.#changedMs,
    }
  }

  async readRoot(): Promise<void> {
    const { name } = this.#part
    const root = join(this.#place.directory, name)
    const stats = await lstatIfThere(root)
    if (stats === undefined) return
    this.#sign(name, stats)
    if (stats.isDirectory()) await this.#readDirectory(root, '')
    else this.report(root, `Cannot use ${name}: it must be a folder, and no link to one`)
  }

  async readAttributes(): Promise<void> {
    const name = `${this.#part.name}.attributes`
    const file = join(this.#place.directory, name)
    const stats = await lstatIfThere(file)
    if (stats === undefined) return
    this.#sign(name, stats)
    const { lines, problems } = await this.#parse(file)
    const found = applyAttributes(this.#entries, lines, { layer: this.#place.layer, part: this.#part })
    for (const { line, message } of [...problems, ...found].sort((a, b) => a.line - b.line)) {
      this.report(`${file}:${line}`, message)
    }
  }

  async #parse(file: string): Promise<ParsedAttributes> {
    try {
      return parseAttributes(await readFlatFile(file))
    } catch (error) {
      const reason = error instanceof FlatFileError ? `it ${error.message}` : describeError(error)
      this.report(file, `Cannot read ${this.#part.name}.attributes: ${reason}`)
      return { lines: [], problems: [] }
    }
  }

  async #readDirectory(directory: string, prefix: string): Promise<void> {
    const names: string[] = []
    for (const bytes of (await readdir(directory, { encoding: 'buffer' })).sort(Buffer.compare)) {
      const name = bytes.toString('utf8')
      if (this.#part.isLeftAlone(name)) continue
      const refused = refuseName(name, bytes) ?? refusePath(prefix + name)
      if (refused === undefined) names.push(name)
      else this.report(join(directory, name), refused)
    }
    // Asked for together: one after the other, the waiting would be most of the time.
    const looks = names.map(async (name) => ({ name, stats: await lstatIfThere(join(directory, name)) }))
    for (const { name, stats } of await Promise.all(looks)) {
      if (stats) await this.#readEntry(join(directory, name), prefix + name, stats)
    }
  }

  async #readEntry(source: string, path: string, stats: Stats): Promise<void> {
    this.#sign(path, stats)
    const part = this.#part
    const base = { path, layer: this.#place.layer, uid: 0, gid: 0 }
    if (stats.isDirectory()) {
      this.#entries.set(path, { ...base, kind: 'directory', mode: part.directoryMode(path), from: 'root' })
      await this.#readDirectory(source, `${path}/`)
    } else if (stats.isSymbolicLink()) {
      const target = await readlink(source)
      this.#put(source, part.placeLink(path), (placed) => ({ ...base, ...placed, kind: 'symlink', target }))
    } else if (stats.isFile()) {
      this.#put(source, part.placeFile(path, stats), (placed) => ({
        ...base,
        ...placed,
        kind: 'file',
        source,
        stats,
      }))
    } else {
      const what = typeOf(stats)
      this.report(
        source,
        `Cannot use /${path}: an overlay has files, directories and links, and this is ${what}`,
      )
    }
  }

  #put(source: string, placed: PlacedFile, entryOf: (placed: Place) => Entry): void {
    if (placed.kind === 'refused') this.report(source, placed.message)
    else if (this.#entries.has(placed.path)) {
      this.report(source, `Cannot use /${placed.path} twice: the same folder has something else of that name`)
    } else this.#entries.set(placed.path, entryOf({ path: placed.path, mode: placed.mode }))
  }

  #sign(path: string, stats: Stats): void {
    const { dev, ino, mode, size, mtimeMs, ctimeMs } = stats
    this.#signature.update(`${[path, dev, ino, mode, size, mtimeMs, ctimeMs].join('\0')}\0`)
    this.#isSigned = true
    this.#changedMs = Math.max(this.#changedMs, mtimeMs, ctimeMs)
  }
}

/** Entries by path, in the order of an archive. */
export function sortedEntries(entries: ReadonlyMap<string, Entry>): readonly Entry[] {
  return [...entries.values()].sort((a, b) => comparePaths(a.path, b.path))
}

async function lstatIfThere(path: string): Promise<Stats | undefined> {
  try {
    return await lstat(path)
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined
    throw error
  }
}

function refuseName(name: string, bytes: Buffer): string | undefined {
  if (!Buffer.from(name).equals(bytes)) return 'Cannot use this file: its name is not UTF-8'
  if (/\p{Cc}/u.test(name)) return 'Cannot use this file: its name has control characters in it'
  if (name.startsWith('.wh.')) {
    return 'Cannot use this file: names that begin with .wh. stand for deletions; write them into root.attributes'
  }
  return undefined
}

function typeOf(stats: Stats): string {
  if (stats.isFIFO()) return 'a FIFO'
  if (stats.isSocket()) return 'a socket'
  return 'a device'
}
