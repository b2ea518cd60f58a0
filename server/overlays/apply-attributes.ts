// Laying the lines of `root.attributes` over what was found in the same layer's `root/`.

import type { LayerName } from '#machine/profile.ts'

import type { AttributeLine, LineProblem } from './attributes.ts'
import { type Entry, parentsOf } from './entries.ts'
import { directoryMode, refusePath } from './reserved-paths.ts'

/** Changes `entries`. Lines that contradict the files are problems and change nothing. */
export function applyAttributes(
  entries: Map<string, Entry>,
  lines: readonly AttributeLine[],
  layer: LayerName,
): readonly LineProblem[] {
  // Parents first, so that `/a directory` counts for `/a/b directory` wherever it stands.
  const ordered = lines.toSorted((a, b) => (a.path < b.path ? -1 : 1))
  return ordered.flatMap((line) => {
    const message = refusePath(line.path) ?? applyLine(entries, line, layer)
    return message === undefined ? [] : [{ line: line.line, message }]
  })
}

/** What is wrong with the line, or undefined. */
function applyLine(entries: Map<string, Entry>, line: AttributeLine, layer: LayerName): string | undefined {
  const { path, action } = line
  const found = entries.get(path)
  const wrong = action === 'change' ? checkChange(line, found) : checkParents(entries, path)
  if (wrong !== undefined) return wrong
  if (action === 'delete') {
    if (found) return `Cannot delete /${path}: the same layer has it in root/`
    addParents(entries, path, layer)
    entries.set(path, { kind: 'delete', path, layer })
    return undefined
  }
  if (action === 'directory') {
    if (found && found.kind !== 'directory')
      return `Cannot make the directory /${path}: root/ has a ${found.kind} there`
    addParents(entries, path, layer)
  }
  const base = found ?? {
    kind: 'directory',
    path,
    layer,
    mode: directoryMode(path),
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

function checkChange({ path, mode }: AttributeLine, found: Entry | undefined): string | undefined {
  if (found === undefined || found.kind === 'delete') {
    return `Cannot set the attributes of /${path}: the same layer has no such file in root/ (for a new directory: add the word directory)`
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

function addParents(entries: Map<string, Entry>, path: string, layer: LayerName): void {
  for (const parent of parentsOf(path)) {
    if (!entries.has(parent)) {
      const mode = directoryMode(parent)
      entries.set(parent, { kind: 'directory', path: parent, layer, mode, uid: 0, gid: 0, from: 'implied' })
    }
  }
}
