// One machine's secret files as an archive in memory: which of them, how much, in which order.

import { createHash } from 'node:crypto'

import type { ProfileProblem } from '#machine/ports.ts'
import { SEALED_ENDING } from '#machine/secret-files.ts'
import type { SecretsArchive } from '#machine/secret-ports.ts'

import { type Entry, type FileEntry, parentsOf } from './entries.ts'
import { mergeLayers } from './merge.ts'
import type { OpenedFile } from './opened-files.ts'
import { type LoadedFile, packLoaded } from './pack.ts'
import type { OverlayLayer } from './read-layer.ts'

export interface MadeArchive {
  /** Undefined when there is nothing to hand out. */
  readonly archive: SecretsArchive | undefined
  readonly problems: readonly ProfileProblem[]
}

export interface ArchiveOptions {
  /** Throws SourceChangedError. */
  readonly open: (entry: FileEntry) => Promise<OpenedFile>
  /** Of all files, with their headers. */
  readonly machineBytes: number
}

/** A file that is in error is left out, and the others are handed out all the same. */
export async function makeSecretArchive(
  layers: readonly OverlayLayer[],
  { open, machineBytes }: ArchiveOptions,
): Promise<MadeArchive> {
  const merged = mergeLayers(layers)
  const entries = merged.entries.map(({ entry }) => entry)
  const problems = [...layers.flatMap((layer) => layer.problems), ...merged.problems]
  const files: LoadedFile[] = []
  let left = machineBytes
  for (const entry of entries) {
    if (entry.kind !== 'file') continue
    const { content, problem } = await open(entry)
    if (problem !== undefined) problems.push(problemOf(entry, problem))
    if (content === undefined) continue
    if (archivedBytes(content) <= left) {
      left -= archivedBytes(content)
      files.push({ entry, content })
    } else {
      problems.push(
        problemOf(entry, `it does not fit: a machine's secrets are at most ${machineBytes} bytes in all`),
      )
    }
  }
  const opened = new Set<Entry>(files.map(({ entry }) => entry))
  const handed = handedOut(entries.filter((entry) => entry.kind !== 'file' || opened.has(entry)))
  if (handed.length === 0) return { archive: undefined, problems }
  const others = handed.flatMap((entry) => (entry.kind === 'file' ? [] : [entry]))
  const bytes = await packLoaded(others, files)
  const digest = createHash('sha256').update(bytes).digest('hex')
  return { archive: { digest, sizeBytes: bytes.length, bytes }, problems }
}

/**
 * Files, links, the directories that lead to them and those that the attributes name. A deletion takes back a secret of a
 * lower layer, and is nothing on the machine.
 */
export function handedOut(entries: readonly Entry[]): readonly Entry[] {
  const wanted = new Set(
    entries.filter((entry) =>
      entry.kind === 'directory' ? entry.from === 'attributes' : entry.kind !== 'delete',
    ),
  )
  const parents = new Set([...wanted].flatMap(({ path }) => parentsOf(path)))
  return entries.filter((entry) => wanted.has(entry) || parents.has(entry.path))
}

function problemOf({ source, layer, path }: FileEntry, reason: string): ProfileProblem {
  return { layer, file: source, message: `Cannot use secret/${path}${SEALED_ENDING}: ${reason}` }
}

/** A header and whole blocks of 512 bytes (POSIX.1-2017, pax, "ustar Interchange Format"). */
function archivedBytes(content: Uint8Array): number {
  return 512 + Math.ceil(content.length / 512) * 512
}
