// The archives that a folder holds for the registry: which of them are to be imported at start.

import { createHash } from 'node:crypto'
import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import * as z from 'zod'

import { writeFileAtomically } from '#lib/atomic-file.ts'

/** What a file of images may be called; whatever else lies there is for people. */
const ARCHIVE = /\.(?:tar|tgz|tar\.gz|tar\.zst|tzst|oci)$/
const LAYOUT = 'index.json'

export interface FoundArchive {
  readonly source: string
  /** Another one for another content, as far as can be told without reading it. */
  readonly mark: string
}

/** In the order of their names. `folder` may be a layout itself. Throws the system's error when it cannot be read. */
export async function findArchives(folder: string): Promise<readonly FoundArchive[]> {
  const names = (await readdir(folder)).filter((name) => !name.startsWith('.')).sort()
  if (names.includes(LAYOUT)) return [await markOf(folder, join(folder, LAYOUT))]
  const found: FoundArchive[] = []
  for (const name of names) {
    const source = join(folder, name)
    const stats = await stat(source).catch(() => undefined)
    if (stats?.isFile() && ARCHIVE.test(name)) found.push(await markOf(source, source))
    const index = join(source, LAYOUT)
    if (stats?.isDirectory() && (await stat(index).catch(() => undefined))?.isFile())
      found.push(await markOf(source, index))
  }
  return found
}

async function markOf(source: string, file: string): Promise<FoundArchive> {
  const { size, mtimeMs } = await stat(file)
  return { source, mark: `${size} ${Math.round(mtimeMs)}` }
}

const noteShape = z.object({ mark: z.string(), references: z.array(z.string()) })

/** Which archives were imported, in a folder of notes. */
export class ImportNotes {
  readonly #folder: string

  constructor(folder: string) {
    this.#folder = folder
  }

  /** What came of the archive as it is now; undefined when it was not imported yet. */
  async find({ source, mark }: FoundArchive): Promise<readonly string[] | undefined> {
    const text = await readFile(this.#fileOf(source), 'utf8').catch(() => '{}')
    const outcome = noteShape.safeParse(findJson(text))
    return outcome.success && outcome.data.mark === mark ? outcome.data.references : undefined
  }

  async write({ source, mark }: FoundArchive, references: readonly string[]): Promise<void> {
    await writeFileAtomically(this.#fileOf(source), `${JSON.stringify({ source, mark, references })}\n`)
  }

  #fileOf(source: string): string {
    return join(this.#folder, `${createHash('sha256').update(source).digest('hex')}.json`)
  }
}

function findJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
