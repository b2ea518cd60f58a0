// The images of the registry, as people read them: pure text.

import { formatTable } from '#lib/text-table.ts'
import { describeBytes } from '#machine/amounts.ts'
import type { ContainerImage } from '#machine/registry-ports.ts'

import { ago } from './time-words.ts'

const DIGEST_DIGITS = 12

export function renderRegistry(images: readonly ContainerImage[], nowMs: number): string[] {
  if (images.length === 0)
    return ['There is no container image yet. kateskit registry import brings some in.']
  const [head = '', ...rows] = formatTable(
    ['IMAGE', 'DIGEST', 'SIZE', 'PLATFORMS', 'IMPORTED'],
    images.map(({ reference, digest, sizeBytes, platforms, importedMs, problem }) => [
      reference,
      digest.slice(0, 'sha256:'.length + DIGEST_DIGITS),
      problem === undefined ? describeBytes(sizeBytes) : 'damaged',
      platforms.join(', ') || '-',
      ago(nowMs - importedMs),
    ]),
  )
  return [head, ...rows.flatMap((row, index) => [row, ...problemNote(images[index])])]
}

function problemNote(image: ContainerImage | undefined): string[] {
  return image?.problem === undefined ? [] : [`    not served: ${image.problem}`]
}
