// What files under secret/ are called in the profile tree.

import { TEMPORARY_PREFIX } from '#lib/atomic-file.ts'

/** A sealed file ends in this, and is called without it on the machine. */
export const SEALED_ENDING = '.age'

/** What people and programs put beside their files, and what is being written by `kateskit secret seal`. */
export function isNoSecret(name: string): boolean {
  return ['.gitignore', '.gitkeep', 'README.md'].includes(name) || name.startsWith(TEMPORARY_PREFIX)
}

/** Of one file, not encrypted. What is bigger is no secret, but something that can be encrypted with one. */
export const SECRET_MAX_BYTES = 1024 * 1024
