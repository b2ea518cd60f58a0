// Tables in docs/ that repeat a table in the code: compared in tests, rewritten with UPDATE_GOLDEN=1.

import { readFile, writeFile } from 'node:fs/promises'

/**
 * The lines between `<!-- table: <name> -->` and `<!-- end -->` in the page, and what they should be.
 * With UPDATE_GOLDEN=1 the page is put right first.
 */
export async function compareDocsTable(
  page: URL,
  name: string,
  rows: readonly (readonly string[])[],
): Promise<{ readonly inDocs: string; readonly inCode: string }> {
  const [header, ...body] = rows.map((cells) => `| ${cells.join(' | ')} |`)
  const inCode = [header, `|${'---|'.repeat(rows[0]?.length ?? 0)}`, ...body].join('\n')
  const marked = new RegExp(`(<!-- table: ${name} -->\n)([^]*?)(\n<!-- end -->)`)
  let text = await readFile(page, 'utf8')
  if (process.env['UPDATE_GOLDEN'] === '1') {
    text = text.replace(marked, (_all, start: string, _old, end: string) => `${start}${inCode}${end}`)
    await writeFile(page, text)
  }
  return { inDocs: marked.exec(text)?.[2] ?? `no table ${name} in ${page.pathname}`, inCode }
}

/** Text as a table's cell: a bar would end it. */
export function docsCell(text: string): string {
  return text.replaceAll('|', '\\|')
}
