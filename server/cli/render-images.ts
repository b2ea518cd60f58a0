// The images of the store, as people read them: pure text.

import { formatTable } from '#lib/text-table.ts'
import type { ImageView } from '#machine/release-ports.ts'

import { ago } from './time-words.ts'

export function renderImages(images: readonly ImageView[], nowMs: number): string[] {
  if (images.length === 0) return ['There is no image yet. kateskit image build makes one.']
  const table = formatTable(
    ['VERSION', 'ARCH', 'SIZE', 'EPOCH', 'IMPORTED', 'CHANNELS', 'MACHINES', 'STATE'],
    images.map((image) => [
      image.version,
      image.arch,
      `${Math.ceil(image.sizeBytes / 1e6)} MB`,
      `${image.epoch}`,
      ago(nowMs - image.importedMs),
      image.channels.join(', ') || '-',
      `${image.machines.length}`,
      image.quarantine === undefined ? '-' : 'quarantined',
    ]),
  )
  const [head = '', ...rows] = table
  return [head, ...rows.flatMap((row, index) => [row, ...quarantineNote(images[index])])]
}

function quarantineNote(image: ImageView | undefined): string[] {
  if (image?.quarantine === undefined) return []
  const { mac, reason } = image.quarantine
  return [`    failed on ${mac}: ${reason}`]
}
