// Profile trees of tests.

import { chmod, mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'

import { type Mac, macToPath } from '#lib/mac.ts'

/** Path inside the profile tree → content. */
export type ProfileFiles = Readonly<Record<string, string>>

/** `machines/<mac>/role` and the like for one machine. */
export function machineFiles(mac: Mac, files: ProfileFiles): ProfileFiles {
  return Object.fromEntries(
    Object.entries(files).map(([name, content]) => [`machines/${macToPath(mac)}/${name}`, content]),
  )
}

/** Scripts become executable. */
export async function writeTree(root: string, files: ProfileFiles): Promise<void> {
  for (const [name, content] of Object.entries(files)) {
    const file = join(root, name)
    await mkdir(dirname(file), { recursive: true })
    await writeFile(file, content)
    if (content.startsWith('#!')) await chmod(file, 0o755)
  }
}
