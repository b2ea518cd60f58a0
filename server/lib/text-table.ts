// Text in columns, for terminals.

const COLUMN_GAP = '  '

/** One string a row, the header first, every column as wide as its widest cell. Cells hold one line each. */
export function formatTable(header: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const all = [header, ...rows]
  const widths = header.map((_, column) => Math.max(...all.map((row) => row[column]?.length ?? 0)))
  return all.map((row) =>
    widths
      .map((width, column) => (row[column] ?? '').padEnd(width))
      .join(COLUMN_GAP)
      .trimEnd(),
  )
}
