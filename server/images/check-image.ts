// Whether the files of an image are still what they were when it came.

import { stat } from 'node:fs/promises'

import { systemErrorCode } from '#lib/errors.ts'
import { readContent } from '#lib/file-bytes.ts'
import type { ImageFile, StoredImage } from '#machine/ports.ts'

/** By size alone: microseconds a file. Empty when all is well. */
export function findQuickProblems(image: StoredImage): Promise<readonly string[]> {
  return problemsOf(image, async (file) => (await stat(file.file)).size === file.sizeBytes)
}

/** By every byte. */
export function findProblems(image: StoredImage): Promise<readonly string[]> {
  return problemsOf(image, async (file) => {
    const { sizeBytes, sha256 } = await readContent(file.file)
    return sizeBytes === file.sizeBytes && sha256 === file.sha256
  })
}

async function problemsOf(
  { files }: StoredImage,
  isGood: (file: ImageFile) => Promise<boolean>,
): Promise<readonly string[]> {
  const problems: string[] = []
  for (const file of files.values()) {
    try {
      if (!(await isGood(file))) problems.push(`${file.name} is damaged`)
    } catch (error) {
      const code = systemErrorCode(error)
      if (code === undefined) throw error
      problems.push(code === 'ENOENT' ? `${file.name} is missing` : `${file.name} cannot be read: ${code}`)
    }
  }
  return problems
}
