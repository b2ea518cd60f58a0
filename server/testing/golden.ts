// Expected output kept in a file beside the tests; UPDATE_GOLDEN=1 writes it anew.

import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'

/** What `file` holds, after it was rewritten with `actual` when UPDATE_GOLDEN is set. Compare with `actual`. */
export async function readGolden(file: URL, actual: string): Promise<string> {
  if (process.env['UPDATE_GOLDEN'] !== undefined) {
    await mkdir(dirname(fileURLToPath(file)), { recursive: true })
    await writeFile(file, actual)
  }
  return await readFile(file, 'utf8')
}
