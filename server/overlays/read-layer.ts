// Looking at one layer's `root/` and `root.attributes`: what it puts where, without reading the files yet.

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
import { comparePaths, type Entry } from './entries.ts'
import { directoryMode, refusePath } from './reserved-paths.ts'

export interface LayerDirectory {
  readonly layer: LayerName
  readonly directory: string
}

export interface OverlayLayer extends LayerDirectory {
  /** By path. */
  readonly entries: ReadonlyMap<string, Entry>
  readonly problems: readonly ProfileProblem[]
  /** Changes whenever anything of the layer does, file contents included. Empty when it has no overlay. */
  readonly signature: string
  /** The latest change of anything in it, as the file system's clock tells it; milliseconds since 1970. */
  readonly changedMs: number
}

/** Never throws: whatever is wrong becomes a problem. */
export async function readOverlayLayer(place: LayerDirectory): Promise<OverlayLayer> {
  const walk = new Walk(place)
  try {
    // A layer's folder that is gone is not a layer without an overlay.
    await lstat(place.directory)
    await walk.readRoot()
    await walk.readAttributes()
  } catch (error) {
    walk.report(place.directory, `Cannot read the layer: ${describeError(error)}`)
  }
  return walk.result()
}

class Walk {
  readonly #place: LayerDirectory
  readonly #entries = new Map<string, Entry>()
  readonly #problems: ProfileProblem[] = []
  readonly #signature = createHash('sha256')
  #isSigned = false
  #changedMs = 0

  constructor(place: LayerDirectory) {
    this.#place = place
  }

  report(file: string, message: string): void {
    this.#problems.push({ layer: this.#place.layer, file, message })
  }

  result(): OverlayLayer {
    return {
      ...this.#place,
      entries: this.#entries,
      problems: this.#problems,
      signature: this.#isSigned ? this.#signature.digest('hex') : '',
      changedMs: this.#changedMs,
    }
  }

  async readRoot(): Promise<void> {
    const root = join(this.#place.directory, 'root')
    const stats = await lstatIfThere(root)
    if (stats === undefined) return
    this.#sign('root', stats)
    if (stats.isDirectory()) await this.#readDirectory(root, '')
    else this.report(root, 'Cannot use root: it must be a folder, and no link to one')
  }

  async readAttributes(): Promise<void> {
    const file = join(this.#place.directory, 'root.attributes')
    const stats = await lstatIfThere(file)
    if (stats === undefined) return
    this.#sign('root.attributes', stats)
    const { lines, problems } = await this.#parse(file)
    const found = applyAttributes(this.#entries, lines, this.#place.layer)
    for (const { line, message } of [...problems, ...found].sort((a, b) => a.line - b.line)) {
      this.report(`${file}:${line}`, message)
    }
  }

  async #parse(file: string): Promise<ParsedAttributes> {
    try {
      return parseAttributes(await readFlatFile(file))
    } catch (error) {
      const reason = error instanceof FlatFileError ? `it ${error.message}` : describeError(error)
      this.report(file, `Cannot read root.attributes: ${reason}`)
      return { lines: [], problems: [] }
    }
  }

  async #readDirectory(directory: string, prefix: string): Promise<void> {
    const names: string[] = []
    for (const bytes of (await readdir(directory, { encoding: 'buffer' })).sort(Buffer.compare)) {
      const name = bytes.toString('utf8')
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
    const base = { path, layer: this.#place.layer, uid: 0, gid: 0 }
    if (stats.isDirectory()) {
      this.#entries.set(path, { ...base, kind: 'directory', mode: directoryMode(path), from: 'root' })
      await this.#readDirectory(source, `${path}/`)
    } else if (stats.isSymbolicLink()) {
      this.#entries.set(path, { ...base, kind: 'symlink', mode: 0o777, target: await readlink(source) })
    } else if (stats.isFile()) {
      // Of the mode only the owner's x-bit counts, like in git: the rest depends on the umask of whoever checked it out.
      const mode = stats.mode & 0o100 ? 0o755 : 0o644
      this.#entries.set(path, { ...base, kind: 'file', mode, source, stats })
    } else {
      const what = typeOf(stats)
      this.report(
        source,
        `Cannot use /${path}: an overlay has files, directories and links, and this is ${what}`,
      )
    }
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
