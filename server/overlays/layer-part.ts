// The two folders of a layer that end up on a machine, and what differs between them.

import type { Stats } from 'node:fs'

import { isNoSecret, SEALED_ENDING } from '#machine/secret-files.ts'

import { directoryMode, refusePath } from './reserved-paths.ts'

/** What a file of the folder is on the machine, or why it cannot be. */
export type PlacedFile =
  | { readonly kind: 'use'; readonly path: string; readonly mode: number }
  | { readonly kind: 'refused'; readonly message: string }

export interface LayerPart {
  /** Of the folder; `<name>.attributes` beside it has its modes and owners. */
  readonly name: 'root' | 'secret'
  /** Names in it that are nobody's business. */
  isLeftAlone(name: string): boolean
  directoryMode(path: string): number
  /** What is wrong with a mode that the attributes give, or undefined. */
  checkMode(path: string, mode: number): string | undefined
  placeFile(path: string, stats: Stats): PlacedFile
  placeLink(path: string): PlacedFile
}

const LINK_MODE = 0o777

/** Laid over the machine's root; public. */
export const ROOT_PART: LayerPart = {
  name: 'root',
  isLeftAlone: () => false,
  directoryMode,
  checkMode: () => undefined,
  // Of the mode only the owner's x-bit counts, like in git: the rest depends on the umask of whoever checked it out.
  placeFile: (path, stats) => ({ kind: 'use', path, mode: stats.mode & 0o100 ? 0o755 : 0o644 }),
  placeLink: (path) => ({ kind: 'use', path, mode: LINK_MODE }),
}

/** Handed to the machine alone, once it has proved who it is. */
export const SECRET_PART: LayerPart = {
  name: 'secret',
  isLeftAlone: isNoSecret,
  directoryMode: () => 0o700,
  checkMode: (path, mode) =>
    mode & 0o007
      ? `Cannot let everybody at /${path}: mode=${mode.toString(8).padStart(4, '0')}; a secret's mode ends in 0`
      : undefined,
  placeFile(path) {
    const place = path.slice(0, -SEALED_ENDING.length)
    if (!path.endsWith(SEALED_ENDING)) {
      return refused(`Cannot use secret/${path}: it is not encrypted: kateskit secret seal`)
    }
    // `...age` would be the folder above.
    if (/(?:^|\/)\.{0,2}$/.test(place))
      return refused(`Cannot use secret/${path}: nothing is left of its name`)
    const reserved = refusePath(place)
    return reserved === undefined ? { kind: 'use', path: place, mode: 0o600 } : refused(reserved)
  },
  placeLink: (path) =>
    path.endsWith(SEALED_ENDING)
      ? refused(
          `Cannot use secret/${path}: a link is made on the machine as it is, so it is called as it is there`,
        )
      : { kind: 'use', path, mode: LINK_MODE },
}

const refused = (message: string): PlacedFile => ({ kind: 'refused', message })
