// Tests of how refusals are counted: bounded, and none lost.

import test from 'ava'

import { silentLog } from '#lib/log.ts'
import type { NewAuditEntry } from '#machine/access-ports.ts'
import { open } from '#testing/store-fixture.ts'
import { TurnedClock } from '#testing/turned-clock.ts'

import { RefusalTally } from './refusal-tally.ts'

const entry = (actor: string): NewAuditEntry => ({
  ...{ actor, action: 'login', target: '', outcome: 'unauthorized', detail: 'no token' },
})

test('note() writes one entry a minute of each kind while it goes on, and forgets it when it is over', async (t) => {
  const { audit } = await open(t)
  const clock = new TurnedClock()
  const tally = new RefusalTally({ audit, clock, log: silentLog })
  t.true(tally.note('a', entry('a')))
  for (let minute = 0; minute < 3; minute++) {
    for (let n = 0; n < 100; n++) t.false(tally.note('a', entry('a')))
    clock.turn(60_000)
  }
  clock.turn(60_000)
  t.true(tally.note('a', entry('a')))
  await tally.stop()
  t.deepEqual(
    (await audit.list({ limit: 100 })).map(({ detail }) => detail),
    ['no token', ...Array(3).fill('no token; 100 such within a minute'), 'no token'],
  )
})

test('note() counts those beyond 32 kinds together, and stop() writes what was only counted', async (t) => {
  const { audit } = await open(t)
  const tally = new RefusalTally({ audit, clock: new TurnedClock(), log: silentLog })
  for (let n = 0; n < 50_000; n++) tally.note(`address ${n}`, entry(`address ${n}`))
  await tally.stop()
  tally.note('late', entry('late'))
  const entries = await audit.list({ limit: 1_000 })
  t.is(entries.length, 34)
  t.deepEqual(
    entries.slice(-2).map(({ actor, detail }) => [actor, detail]),
    [
      ['anonymous (many)', 'no token'],
      ['anonymous (many)', 'no token; 49967 such within a minute'],
    ],
  )
})

test('note() goes on when the log cannot be written', async (t) => {
  const errors: string[] = []
  const log = { ...silentLog, error: (_fields: object, message: string) => errors.push(message) }
  const audit = { append: () => Promise.reject(new Error('no room')) }
  const tally = new RefusalTally({ audit, clock: new TurnedClock(), log })
  tally.note('a', entry('a'))
  tally.note('a', entry('a'))
  await tally.stop()
  t.deepEqual(errors, ['Cannot write down a refusal', 'Cannot write down a refusal'])
})
