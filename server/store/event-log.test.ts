// Tests of the history: its order, its listeners, its bounds.

import { statSync } from 'node:fs'

import test from 'ava'

import { systemClock } from '#lib/clock.ts'
import { silentLog } from '#lib/log.ts'
import { parseMac } from '#lib/mac.ts'
import type { Event } from '#machine/event.ts'
import { open, tempFile } from '#testing/store-fixture.ts'

import { openStore } from './store.ts'

const MAC = parseMac('52:54:00:12:34:56')
const OTHER = parseMac('52:54:00:00:00:01')

test('events.list() pages by id and narrows by machine', async (t) => {
  const { events } = await open(t)
  for (const mac of [MAC, OTHER, MAC]) {
    await events.append({
      kind: 'step-done',
      mac,
      message: 'm',
      data: { step: '10-net', seconds: 1.5, ok: true },
    })
  }
  await events.append({ kind: 'server-started', message: 'up' })
  const ids = async (query: Parameters<typeof events.list>[0]) =>
    (await events.list(query)).map(({ id }) => id)
  t.deepEqual(await ids({ limit: 10 }), [1, 2, 3, 4])
  t.deepEqual(await ids({ limit: 2 }), [3, 4])
  t.deepEqual(await ids({ limit: 2, afterId: 1 }), [2, 3])
  t.deepEqual(await ids({ limit: 10, mac: MAC }), [1, 3])
  t.deepEqual(await ids({ limit: 10, mac: MAC, afterId: 1 }), [3])
  const [first] = await events.list({ limit: 1, afterId: 0 })
  t.deepEqual(first?.data, { step: '10-net', seconds: 1.5, ok: true })
})

test('events.append() tells subscribers in order of id, also when many write at once', async (t) => {
  const { events } = await open(t)
  const heard: Event[] = []
  const stop = events.subscribe((event) => heard.push(event))
  events.subscribe(() => {
    throw new Error('a listener that breaks the rule')
  })
  const written = await Promise.all(
    Array.from({ length: 600 }, (_, n) => events.append({ kind: 'server-started', message: `${n}` })),
  )
  t.deepEqual(heard, written)
  t.deepEqual(
    written.map(({ id }) => id),
    Array.from({ length: 600 }, (_, n) => n + 1),
  )
  t.deepEqual(await events.list({ limit: 1000 }), heard)
  stop()
  await events.append({ kind: 'server-stopped', message: '' })
  t.is(heard.length, 600)
})

test('events.append() drops the oldest when there are too many, and never reuses an id', async (t) => {
  const file = tempFile(t)
  const store = await open(t, file, 100)
  await Promise.all(
    Array.from({ length: 2000 }, () => store.events.append({ kind: 'server-started', message: '' })),
  )
  t.deepEqual(
    (await store.events.list({ limit: 5000, afterId: 0 })).map(({ id }) => id).slice(0, 2),
    [1901, 1902],
  )
  await store.close()
  const again = await open(t, file, 100)
  t.is((await again.events.append({ kind: 'server-started', message: '' })).id, 2001)
})

test('events.append() keeps a tenth of the events while they take too much room', async (t) => {
  const file = tempFile(t)
  const options = { file, clock: systemClock, log: silentLog, keepEvents: 1000, maxEventBytes: 8_000_000 }
  const store = await openStore(options)
  t.teardown(() => store.close())
  const kept = async (count: number, size: number) => {
    const add = () => store.events.append({ kind: 'step-failed', message: 'x'.repeat(size) })
    await Promise.all(Array.from({ length: count }, add))
    return (await store.events.list({ limit: 5000, afterId: 0 })).length
  }
  t.is(await kept(2000, 100), 1000)
  t.is(await kept(999, 15_000), 1999)
  t.is(await kept(1, 15_000), 100)
  t.is(await kept(1000, 100), 1000, 'as many as ever, now that they are small again')
  t.true(statSync(file).size < 20_000_000)
})
