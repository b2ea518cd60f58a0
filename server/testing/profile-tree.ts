// A profile tree of real files, started, with everything it tells.

import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

import type { ExecutionContext } from 'ava'

import { type Clock, systemClock } from '#lib/clock.ts'
import { silentLog } from '#lib/log.ts'
import { parseMac } from '#lib/mac.ts'
import type { Event, NewEvent } from '#machine/event.ts'

import { createProfileTree } from '#profiles/tree.ts'

export const mac = parseMac('02:4b:69:74:00:01')
export const own = 'machines/02-4b-69-74-00-01'

export const GOOD = {
  'roles/worker/console': 'ttyS0\n',
  'roles/gpu/boot': 'hold\n',
  [`${own}/role`]: 'worker\n',
}

export type Files = Readonly<Record<string, string | Uint8Array>>

async function writeFiles(directory: string, files: Files): Promise<void> {
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(directory, name)), { recursive: true })
    await writeFile(join(directory, name), content)
  }
}

/** A started tree with everything it told. */
export async function startTree(
  t: ExecutionContext,
  files: Files,
  options: { rereadMs?: number; clock?: Clock } = {},
) {
  const home = await mkdtemp(join(tmpdir(), 'kit-profiles-'))
  const directory = join(home, 'profiles')
  await writeFiles(directory, files)
  const told: NewEvent[] = []
  let heard = () => {}
  const tree = createProfileTree({
    directory,
    events: {
      async append(event) {
        told.push(event)
        heard()
        return { ...event, id: told.length, atMs: 0, data: event.data ?? {} } satisfies Event
      },
    },
    log: silentLog,
    clock: systemClock,
    // So long that the tests' changes are noticed by the watch alone.
    rereadMs: 600_000,
    ...options,
  })
  t.teardown(async () => {
    await tree.stop()
    await rm(home, { recursive: true })
  })
  await tree.start()
  /** Resolves with the first event of the kind that is told from now on. */
  const next = (kind: NewEvent['kind']) => {
    const from = told.length
    return new Promise<NewEvent>((resolve) => {
      heard = () => {
        const event = told.slice(from).find((candidate) => candidate.kind === kind)
        if (event) resolve(event)
      }
      heard()
    })
  }
  const write = (changes: Files) => writeFiles(directory, changes)
  return { tree, home, directory, told, next, write }
}
