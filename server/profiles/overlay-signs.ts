// Telling whether the overlay of a layer has changed, without reading its files: by what lstat(2) says of each.

import { createHash } from 'node:crypto'
import type { Stats } from 'node:fs'
import { lstat, readdir } from 'node:fs/promises'
import { join } from 'node:path'

import { systemErrorCode } from '#lib/errors.ts'
import type { LayerName } from '#machine/profile.ts'
import type { Layers } from '#machine/profile-merge.ts'

export interface OverlaySign {
  /** Another one whenever anything in `root/`, `secret/` or their attributes is another. */
  readonly text: string
  /** Something changed so shortly before that it may change again without another time stamp (git: "racily clean"). */
  readonly isFresh: boolean
}

export type OverlaySigns = ReadonlyMap<LayerName, OverlaySign>

/** The coarsest tick of a file system in use. */
const TICK_MS = 2000

/** Never throws. A layer whose folder is away keeps the sign it had `before`. */
export async function signOverlays(
  layers: Layers,
  { before, nowMs }: { before: OverlaySigns; nowMs: number },
): Promise<OverlaySigns> {
  const signs = [...layers.values()].map(async ({ name, directory }) => {
    const isThere = (await lstatOf(directory)) !== undefined
    const sign = isThere ? await signOverlay(directory, nowMs) : before.get(name)
    return sign === undefined ? [] : ([[name, sign]] as const)
  })
  return new Map((await Promise.all(signs)).flat())
}

/** The layers whose overlay is not what it was. */
export function changedOverlays(before: OverlaySigns, after: OverlaySigns): readonly LayerName[] {
  return [...after.keys()].filter((name) => {
    const old = before.get(name)
    return old !== undefined && old.text !== after.get(name)?.text
  })
}

async function signOverlay(directory: string, nowMs: number): Promise<OverlaySign> {
  const hash = createHash('sha256')
  let changedMs = 0
  const sign = (path: string, stats: Stats) => {
    const { dev, ino, mode, size, mtimeMs, ctimeMs } = stats
    hash.update(`${[path, dev, ino, mode, size, mtimeMs, ctimeMs].join('\0')}\0`)
    changedMs = Math.max(changedMs, mtimeMs, ctimeMs)
  }
  const visit = async (path: string, stats: Stats | undefined): Promise<void> => {
    if (stats === undefined) return
    sign(path, stats)
    if (!stats.isDirectory()) return
    const children = await namesIn(path)
    if (typeof children === 'string') hash.update(`${children}\0`)
    // Asked for together, signed in order.
    else {
      const looks = children.map(async (name) => ({ name, stats: await lstatOf(join(path, name)) }))
      for (const look of await Promise.all(looks)) await visit(join(path, look.name), look.stats)
    }
  }
  for (const name of ['root', 'root.attributes', 'secret', 'secret.attributes']) {
    await visit(join(directory, name), await lstatOf(join(directory, name)))
  }
  return { text: hash.digest('hex'), isFresh: changedMs >= nowMs - TICK_MS }
}

async function lstatOf(path: string): Promise<Stats | undefined> {
  return lstat(path).catch(() => undefined)
}

/** The names in a folder, or the code of the error that keeps them from us: another one is a change too. */
async function namesIn(path: string): Promise<readonly string[] | string> {
  try {
    return (await readdir(path)).sort()
  } catch (error) {
    return systemErrorCode(error) ?? 'unknown error'
  }
}
