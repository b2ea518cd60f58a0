// Tests of what people and programs leave in the store: tokens with an end, and the log of who did what.

import test, { type ExecutionContext } from 'ava'
import Database from 'better-sqlite3'
import fc from 'fast-check'

import { silentLog } from '#lib/log.ts'
import type { NewAuditEntry } from '#machine/access-ports.ts'
import { open, refusal, tempFile } from '#testing/store-fixture.ts'
import { TurnedClock } from '#testing/turned-clock.ts'

import { AUDIT_ORIGIN } from './audit-log.ts'
import { openStore, type Store } from './store.ts'

const ENTRY: NewAuditEntry = {
  actor: 'token lab (0123456789ab)',
  action: 'PUT /machines/:mac/role',
  target: '52:54:00:12:34:56',
  outcome: 'done',
  detail: 'role=worker',
}

async function openWithClock(t: ExecutionContext) {
  const clock = new TurnedClock()
  const store = await openStore({ file: tempFile(t), clock, log: silentLog })
  t.teardown(() => store.close())
  return { clock, store }
}

test('tokens.verify() refuses a token that ran out or was revoked; both stay in the list', async (t) => {
  const { clock, store } = await openWithClock(t)
  const { tokens } = store
  const short = await tokens.make({ name: 'ci', role: 'operator', expiresMs: clock.ms + 1_000 })
  const long = await tokens.make({ name: 'laptop', role: 'viewer' })
  t.like(await tokens.verify(short.secret), { role: 'operator', expiresMs: clock.ms + 1_000 })
  clock.turn(1_000)
  t.is(await tokens.verify(short.secret), undefined)
  const revokedMs = clock.ms
  t.like(await tokens.revoke(long.info.id), { name: 'laptop', revokedMs })
  t.is(await tokens.verify(long.secret), undefined)
  clock.turn(5)
  t.like(await tokens.revoke(long.info.id), { revokedMs }, 'the first time counts')
  t.deepEqual((await tokens.list()).map(({ name }) => name).sort(), ['ci', 'laptop'])
  t.is((await refusal(t, () => tokens.revoke('0123456789ab'))).code, 'not-found')
})

test('tokens.verify() notes the last use once a minute', async (t) => {
  const { clock, store } = await openWithClock(t)
  const { info, secret } = await store.tokens.make({ name: 'ci', role: 'viewer' })
  const lastUse = async () => {
    await store.leases.list()
    await store.audit.append(ENTRY) // committed after whatever was under way
    return (await store.tokens.list()).find(({ id }) => id === info.id)?.lastUsedMs
  }
  const firstMs = clock.ms
  t.is(await lastUse(), undefined)
  await Promise.all([store.tokens.verify(secret), store.tokens.verify(secret)])
  t.is(await lastUse(), firstMs)
  clock.turn(59_999)
  await store.tokens.verify(secret)
  t.is(await lastUse(), firstMs)
  clock.turn(1)
  await store.tokens.verify(secret)
  t.is(await lastUse(), firstMs + 60_000)
  clock.ms = 7 // set back: the clock was wrong before
  await store.tokens.verify(secret)
  t.is(await lastUse(), 7)
})

test('audit.append() counts without a gap, also when many write at once and after a restart', async (t) => {
  const file = tempFile(t)
  const store = await open(t, file)
  const before = await store.audit.verify()
  t.deepEqual(before, { entries: 0, head: AUDIT_ORIGIN })
  const entries = await Promise.all(Array.from({ length: 50 }, () => store.audit.append(ENTRY)))
  t.deepEqual(
    entries.map(({ id }) => id),
    entries.map((_, index) => index + 1),
  )
  const head = entries.at(-1)?.hash ?? ''
  await store.close()
  const { audit } = await open(t, file)
  t.like(await audit.append(ENTRY), { id: 51, ...ENTRY })
  t.like(await audit.verify(head), { entries: 51, rememberedId: 50 })
  t.is((await audit.verify('f'.repeat(64))).rememberedId, undefined)
  t.is((await audit.verify(AUDIT_ORIGIN)).rememberedId, 0)
  t.deepEqual(
    (await audit.list({ afterId: 3, limit: 2 })).map(({ id }) => id),
    [4, 5],
  )
  t.deepEqual(
    (await audit.list({ limit: 2 })).map(({ id }) => id),
    [50, 51],
  )
})

test('audit.verify() believes any text that append() took', async (t) => {
  const { store } = await openWithClock(t)
  const text = fc.string({ unit: 'binary', maxLength: 300 })
  const half = fc.constantFrom('\ud800', 'a\udc00b', `${'x'.repeat(255)}\u{1f600}`, '\0', '')
  await fc.assert(
    fc.asyncProperty(fc.oneof(text, half), async (value) => {
      const entry = { ...ENTRY, actor: value, target: value, detail: value }
      const { detail } = await store.audit.append(entry)
      return !/\p{Cc}/u.test(detail)
    }),
    { numRuns: 200 },
  )
  t.is((await store.audit.verify()).problem, undefined)
})

test('the database itself refuses to change, take out or skip an entry of the audit log', async (t) => {
  const file = tempFile(t)
  const store = await open(t, file)
  await store.audit.append(ENTRY)
  const database = new Database(file)
  t.teardown(() => database.close())
  for (const sql of [
    "update audit set outcome = 'done'",
    'delete from audit',
    "insert or replace into audit values (1, 1, '', '', '', '', '', '')",
    "insert into audit values (3, 1, '', '', '', '', '', '')",
    "insert into audit values (-1, 1, '', '', '', '', '', '')",
  ]) {
    t.throws(() => database.exec(sql), { message: /append-only/ }, sql)
  }
  t.like(await store.audit.verify(), { entries: 1 })
})

const TAMPERED: readonly [title: string, sql: string, id: number][] = [
  ['changed', "update audit set actor = 'nobody' where id = 1200", 1200],
  ['moved in time', 'update audit set at_ms = at_ms + 1 where id = 1200', 1200],
  ['moved between fields', "update audit set target = '', detail = target || detail where id = 1200", 1200],
  ['taken out', 'delete from audit where id = 1200', 1200],
  ['put before the first', "insert into audit values (-7, 1, '', '', '', '', '', '')", 1],
  ['given a made-up hash', `update audit set hash = '${'a'.repeat(64)}' where id = 1200`, 1200],
]
for (const [title, sql, id] of TAMPERED) {
  test(`audit.verify() names the entry that was ${title}`, async (t) => {
    const file = tempFile(t)
    const store = await open(t, file)
    await fill(store, 1_500)
    const { head } = await store.audit.verify()
    withoutTriggers(file, sql)
    const verdict = await store.audit.verify(head)
    t.is(verdict.problem?.id, id)
    t.is(verdict.rememberedId, undefined)
  })
}

test('audit.verify() misses a remembered head when the end was cut off', async (t) => {
  const file = tempFile(t)
  const store = await open(t, file)
  await fill(store, 10)
  const { head } = await store.audit.verify()
  withoutTriggers(file, 'delete from audit where id > 7')
  const verdict = await store.audit.verify(head)
  t.is(verdict.problem, undefined, 'what is left is whole')
  t.is(verdict.rememberedId, undefined)
  t.is(verdict.entries, 7)
})

async function fill({ audit }: Store, count: number): Promise<void> {
  await Promise.all(Array.from({ length: count }, () => audit.append(ENTRY)))
}

/** What somebody does who has the file. */
function withoutTriggers(file: string, sql: string): void {
  const database = new Database(file)
  for (const name of ['audit_no_update', 'audit_no_delete', 'audit_no_gap']) {
    database.exec(`drop trigger ${name}`)
  }
  database.exec(sql)
  database.close()
}
