// A real store in a folder of its own, gone with the test.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import type { ExecutionContext } from 'ava'

import { systemClock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import { silentLog } from '#lib/log.ts'
import { openStore, type Store } from '#store/store.ts'

export function tempFile(t: ExecutionContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'kit-store-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  return join(folder, 'state', 'kateskit.db')
}

export async function open(t: ExecutionContext, file = tempFile(t), keepEvents = 100_000): Promise<Store> {
  const store = await openStore({ file, clock: systemClock, log: silentLog, keepEvents })
  t.teardown(() => store.close())
  return store
}

export async function refusal(t: ExecutionContext, action: () => Promise<unknown>): Promise<KitError> {
  const error = await t.throwsAsync(action, { instanceOf: KitError })
  return error as KitError
}
