// A server whose clock goes days late until it is set right: what lasts for days is over when it is.

import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

import { PROJECT, type Surroundings, scratchFolder } from './test-lan.ts'

export interface LateClock {
  /** For the server's process. */
  readonly environment: Readonly<Record<string, string>>
  /** From the server's next start on. */
  setRight(): Promise<void>
}

export async function lateClock(t: Surroundings, days: number): Promise<LateClock> {
  const file = join(await scratchFolder(t), 'days')
  await writeFile(file, String(days))
  const preload = pathToFileURL(join(PROJECT, 'qemu-tests/clock-behind.ts')).href
  return {
    environment: { NODE_OPTIONS: `--import=${preload}`, CLOCK_BEHIND_FILE: file },
    setRight: () => writeFile(file, '0'),
  }
}
