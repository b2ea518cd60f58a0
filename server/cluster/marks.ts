// Labels and taints that come from a machine's files: put on its Node and taken off again, those of others left alone.

import type { V1Node, V1Taint } from '@kubernetes/client-node'

import { KitError } from '#lib/errors.ts'
import type { NodeMarks } from '#machine/cluster-ports.ts'

/** Which labels and taints of the Node are ours: what is missing in the files is taken off only when it is among them. */
export const MARKS_ANNOTATION = 'kateskit/marks'

/** A JSON merge patch (RFC 7396): null takes away; lists are replaced as a whole. */
export interface MarksPatch {
  readonly metadata: {
    /** Where the Node was changed since, the patch is refused. */
    readonly resourceVersion?: string
    readonly labels: Readonly<Record<string, string | null>>
    readonly annotations: Readonly<Record<string, string | null>>
  }
  readonly spec: { readonly taints: readonly V1Taint[] }
}

interface Owned {
  readonly labels: readonly string[]
  /** `key:Effect`, which is what tells taints apart. */
  readonly taints: readonly string[]
}

/** Undefined when the Node is as it should be. Throws KitError `invalid-input`. */
export function planMarks(node: V1Node, marks: NodeMarks): MarksPatch | undefined {
  const annotation = node.metadata?.annotations?.[MARKS_ANNOTATION]
  const owned = readOwned(annotation)
  const labels = planLabels(node.metadata?.labels ?? {}, owned.labels, marks.labels)
  const wanted = marks.taints.map(parseTaint)
  const current = node.spec?.taints ?? []
  const taints = planTaints(current, owned.taints, wanted)
  const record = writeOwned({ labels: Object.keys(marks.labels), taints: wanted.map(taintKey) })
  const isSame =
    sameTaints(current, taints) && Object.keys(labels).length === 0 && (annotation ?? null) === record
  if (isSame) return undefined
  const resourceVersion = node.metadata?.resourceVersion
  return {
    metadata: {
      ...(resourceVersion === undefined ? {} : { resourceVersion }),
      labels,
      annotations: { [MARKS_ANNOTATION]: record },
    },
    spec: { taints },
  }
}

/** `key=value:Effect`, `key:Effect`. Throws KitError `invalid-input`. */
export function parseTaint(text: string): V1Taint {
  const [, key, value, effect] =
    /^([^=:\s]+)(?:=([^:\s]*))?:(NoSchedule|PreferNoSchedule|NoExecute)$/.exec(text) ?? []
  if (key === undefined || effect === undefined)
    throw new KitError(
      'invalid-input',
      `Cannot read the taint ${JSON.stringify(text)}: it is not key=value:Effect`,
    )
  return { key, effect, ...(value === undefined || value === '' ? {} : { value }) }
}

function planLabels(
  current: Readonly<Record<string, string>>,
  owned: readonly string[],
  wanted: Readonly<Record<string, string>>,
): Record<string, string | null> {
  const gone = owned.filter((key) => !(key in wanted) && key in current)
  const other = Object.entries(wanted).filter(([key, value]) => current[key] !== value)
  return { ...Object.fromEntries(gone.map((key) => [key, null])), ...Object.fromEntries(other) }
}

function planTaints(
  current: readonly V1Taint[],
  owned: readonly string[],
  wanted: readonly V1Taint[],
): readonly V1Taint[] {
  const ours = new Set([...owned, ...wanted.map(taintKey)])
  return [...current.filter((taint) => !ours.has(taintKey(taint))), ...wanted]
}

function sameTaints(some: readonly V1Taint[], others: readonly V1Taint[]): boolean {
  const text = (taints: readonly V1Taint[]) =>
    taints
      .map((taint) => `${taintKey(taint)}=${taint.value ?? ''}`)
      .sort()
      .join(' ')
  return text(some) === text(others)
}

function taintKey({ key, effect }: V1Taint): string {
  return `${key}:${effect}`
}

/** One that cannot be read was written by somebody else: then nothing of the Node is ours. */
function readOwned(annotation: string | undefined): Owned {
  const texts = (value: unknown) =>
    Array.isArray(value) ? value.filter((each) => typeof each === 'string') : []
  try {
    const { labels, taints } = JSON.parse(annotation ?? '{}') as { labels?: unknown; taints?: unknown }
    return { labels: texts(labels), taints: texts(taints) }
  } catch {
    return { labels: [], taints: [] }
  }
}

function writeOwned({ labels, taints }: Owned): string | null {
  if (labels.length === 0 && taints.length === 0) return null
  return JSON.stringify({ labels: labels.toSorted(), taints: taints.toSorted() })
}
