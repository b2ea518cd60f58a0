// Laying the lines of `root.attributes` over what was found in the same layer's `root/`; the same for `secret/`.

import type { LayerName } from '#machine/profile.ts'

import type { AttributeLine, LineProblem } from './attributes.ts'
import { type Entry, parentsOf } from './entries.ts'
import type { LayerPart } from './layer-part.ts'
import { refusePath } from './reserved-paths.ts'

interface Place {
  readonly layer: LayerName
  readonly part: LayerPart
}

/** Changes `entries`. Lines that contradict the files are problems and change nothing. */
export function applyAttributes(
  entries: Map<string, Entry>,
  lines: readonly AttributeLine[],
  place: Place,
): readonly LineProblem[] {
  // Parents first, so that `/a directory` counts for `/a/b directory` wherever it stands.
  const ordered = lines.toSorted((a, b) => (a.path < b.path ? -1 : 1))
  return ordered.flatMap((line) => {
    const message = refusePath(line.path) ?? applyLine(entries, line, place)
    return message === undefined ? [] : [{ line: line.line, message }]
  })
}

/** What is wrong with the line, or undefined. */
function applyLine(entries: Map<string, Entry>, line: AttributeLine, place: Place): string | undefined {
  const { path, action } = line
  const { layer, part } = place
  const found = entries.get(path)
  const wrong =
    (line.mode === undefined ? undefined : part.checkMode(path, line.mode)) ??
    (action === 'change' ? checkChange(line, found, part) : checkParents(entries, path))
  if (wrong !== undefined) return wrong
  if (action === 'delete') {
    if (found) return `Cannot delete /${path}: the same layer has it in ${part.name}/`
    addParents(entries, path, place)
    entries.set(path, { kind: 'delete', path, layer })
    return undefined
  }
  if (action === 'directory') {
    if (found && found.kind !== 'directory')
      return `Cannot make the directory /${path}: ${part.name}/ has a ${found.kind} there`
    addParents(entries, path, place)
  }
  const base = found ?? {
    kind: 'directory',
    path,
    layer,
    mode: part.directoryMode(path),
    uid: 0,
    gid: 0,
    from: 'attributes',
  }
  if (base.kind === 'delete') return undefined
  const { mode = base.mode, uid = base.uid, gid = base.gid } = line
  const written = base.kind === 'directory' ? { ...base, from: 'attributes' as const } : base
  entries.set(path, { ...written, mode, uid, gid })
  return undefined
}

function checkChange(
  { path, mode }: AttributeLine,
  found: Entry | undefined,
  part: LayerPart,
): string | undefined {
  if (found === undefined || found.kind === 'delete') {
    return `Cannot set the attributes of /${path}: the same layer has no such file in ${part.name}/ (for a new directory: add the word directory)`
  }
  return found.kind === 'symlink' && mode !== undefined
    ? `Cannot set the mode of /${path}: links have none`
    : undefined
}

/** Something beneath a link would land wherever the link leads. */
function checkParents(entries: ReadonlyMap<string, Entry>, path: string): string | undefined {
  const blocking = parentsOf(path)
    .map((parent) => entries.get(parent))
    .find((entry) => entry !== undefined && entry.kind !== 'directory')
  if (blocking === undefined) return undefined
  const what = blocking.kind === 'delete' ? 'deleted' : `a ${blocking.kind}`
  return `Cannot use /${path}: /${blocking.path} is ${what} in the same layer`
}

function addParents(entries: Map<string, Entry>, path: string, { layer, part }: Place): void {
  for (const parent of parentsOf(path)) {
    if (!entries.has(parent)) {
      const mode = part.directoryMode(parent)
      entries.set(parent, { kind: 'directory', path: parent, layer, mode, uid: 0, gid: 0, from: 'implied' })
    }
  }
}
