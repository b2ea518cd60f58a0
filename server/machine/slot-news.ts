// What a check-in says of the slots that was not known before: which turned good or bad, and whether an image failed.

import type { NewEvent } from './event.ts'
import { type Boot, type Machine, SLOT_NAMES, type Slot } from './machine.ts'
import type { UpdateLock } from './release-ports.ts'

export interface SlotFacts {
  readonly before: Machine
  readonly after: Machine
  readonly boot: Boot
  /** The update this machine is allowed to carry out. */
  readonly lock: UpdateLock | undefined
}

/** An image that failed on the machine, with the reason the machine gives. */
export interface ImageFailure {
  readonly version: string
  readonly reason: string
}

export interface SlotNews {
  readonly events: readonly NewEvent[]
  readonly failures: readonly ImageFailure[]
}

export function findSlotNews(facts: SlotFacts): SlotNews {
  const news = SLOT_NAMES.map((name) => newsOf(name, facts))
  return { events: news.flatMap(({ events }) => events), failures: news.flatMap(({ failures }) => failures) }
}

function newsOf(name: 'a' | 'b', facts: SlotFacts): SlotNews {
  const { before, after } = facts
  const now = after.slots?.[name]
  const was = before.slots?.[name]
  if (now === undefined) return NONE
  if (now.state === 'good' && !isSame(was, now)) return { events: turnedGood(name, now, facts), failures: [] }
  if (now.state !== 'bad' || (isSame(was, now) && !hasFailedAgain(now, facts))) return NONE
  const reason = now.reason ?? after.reason ?? 'the machine gave no reason'
  const image = now.image ?? 'unknown'
  const bad: NewEvent = {
    kind: 'slot-bad',
    mac: after.mac,
    message: `slot ${name}, image ${image}, is bad: ${reason}`,
    data: { slot: name, image },
  }
  // What was good before was damaged later: its disk failed, not the image.
  const wasGood = was?.state === 'good' && was.image === now.image
  if (wasGood || now.image === undefined) return { events: [bad], failures: [] }
  // What an initrd names is what it is about to write or start.
  const isOther = after.imageVersion !== undefined && after.imageVersion !== now.image
  const runs = after.state === 'running' && isOther ? after.imageVersion : undefined
  const failed: NewEvent = {
    kind: 'update-failed',
    mac: after.mac,
    message: `image ${image} failed${runs === undefined ? '' : `, it runs ${runs} again`}: ${reason}`,
    data: { image, ...(runs !== undefined && { runs }) },
  }
  return { events: [bad, failed], failures: [{ version: image, reason }] }
}

const NONE: SlotNews = { events: [], failures: [] }

function isSame(was: Slot | undefined, now: Slot): boolean {
  return was?.state === now.state && was.image === now.image
}

/** It was bad before the update began and is bad after it: what lay in between was never reported. */
function hasFailedAgain(now: Slot, { after, boot, lock }: SlotFacts): boolean {
  return (
    lock?.version !== undefined &&
    lock.version === now.image &&
    boot.mintedMs > lock.sinceMs &&
    after.imageVersion !== now.image
  )
}

function turnedGood(name: 'a' | 'b', slot: Slot, { before, after }: SlotFacts): readonly NewEvent[] {
  const mac = after.mac
  const image = slot.image ?? 'unknown'
  const good: NewEvent = {
    kind: 'slot-good',
    mac,
    message: `slot ${name}, image ${image}, is good`,
    data: { slot: name, image },
  }
  const from = before.slots?.[name === 'a' ? 'b' : 'a']
  const isUpdate = before.isInstalled === true && from?.state === 'good' && from.image !== slot.image
  if (!isUpdate || after.slot !== name) return [good]
  const updated: NewEvent = {
    kind: 'updated',
    mac,
    message: `image ${from.image ?? 'unknown'} → ${image}`,
    data: { from: from.image ?? 'unknown', to: image },
  }
  return [good, updated]
}
