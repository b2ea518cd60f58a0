// A table that fits a terminal: where it would be too wide, some columns are cut.

import { formatTable } from '#lib/text-table.ts'

const GAP = 2

export interface Cut {
  readonly column: string
  /** Its cells are never cut to less. */
  readonly min: number
}

/** Cuts in the order of `cuts`, each only as far as it takes. Rows may still be wider when all are at their least. */
export function formatFittedTable(
  header: readonly string[],
  rows: readonly (readonly string[])[],
  { width, cuts }: { width: number; cuts: readonly Cut[] },
): string[] {
  const widths = header.map((_, column) =>
    Math.max(...[header, ...rows].map((row) => row[column]?.length ?? 0)),
  )
  let excess = widths.reduce((sum, each) => sum + each + GAP, -GAP) - width
  for (const { column, min } of cuts) {
    const at = header.indexOf(column)
    const now = widths[at] ?? 0
    const less = Math.min(excess, now - Math.max(min, column.length))
    if (less <= 0) continue
    widths[at] = now - less
    excess -= less
  }
  const fit = (row: readonly string[]) => row.map((cell, column) => cut(cell, widths[column] ?? cell.length))
  return formatTable(header, rows.map(fit))
}

/** At most `width` characters; what was cut ends in `…`. */
export function cut(text: string, width: number): string {
  return text.length <= width ? text : `${text.slice(0, width - 1)}…`
}
