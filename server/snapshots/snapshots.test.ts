// Snapshots on a real disk: full disks, kills, wrong clocks, and what is removed.

import { execFile, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'

import { KitError } from '#lib/errors.ts'
import { silentLog } from '#lib/log.ts'
import { parseMac } from '#lib/mac.ts'
import { onLines } from '#lib/process.ts'
import { TurnedClock } from '#testing/turned-clock.ts'

import { superfluous } from './prune.ts'
import { findSnapshotName, formatSnapshotName } from './snapshot-name.ts'
import { createSnapshotStore, type SnapshotStoreOptions } from './snapshot-store.ts'

const run = promisify(execFile)
const CLUSTER = '0123456789abcdef'
const MAC = parseMac('52:54:00:12:34:56')
const DAY_MS = 24 * 3600 * 1000

const sha256 = (text: string | Buffer) => createHash('sha256').update(text).digest('hex')

async function* stream(text: string, pieces = 4) {
  const size = Math.ceil(text.length / pieces)
  for (let at = 0; at < text.length; at += size) yield Buffer.from(text.slice(at, at + size))
}

function tempFolder(t: ExecutionContext) {
  const folder = mkdtempSync(join(tmpdir(), 'kit-snapshots-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

async function openStore(t: ExecutionContext, options: Partial<SnapshotStoreOptions> = {}) {
  const directory = options.directory ?? join(tempFolder(t), 'snapshots')
  const clock = new TurnedClock()
  const store = createSnapshotStore({ keep: 3, days: 7, clock, log: silentLog, ...options, directory })
  await store.start()
  t.teardown(() => store.stop())
  const put = (text: string, clusterId = CLUSTER) =>
    store.save(stream(text), { clusterId, mac: MAC, sha256: sha256(text) })
  const contents = () => store.list().map(({ file }) => readFileSync(file, 'utf8'))
  return Object.assign(store, { directory, clock, put, contents, names: () => readdirSync(directory) })
}

test('save() keeps what came, for its owner alone, also over a restart', async (t) => {
  const store = await openStore(t)
  const saved = await store.put('one')
  t.like(saved, { sha256: sha256('one'), sizeBytes: 3, clusterId: CLUSTER, mac: MAC })
  await store.put('two')
  t.deepEqual(store.contents(), ['two', 'one'])
  t.is(statSync(saved.file).mode & 0o777, 0o600)
  t.is(statSync(store.directory).mode & 0o777, 0o700)
  writeFileSync(join(store.directory, 'notes.txt'), 'of a person')
  writeFileSync(join(store.directory, '.tmp-0123'), 'of a server that was killed')
  const again = await openStore(t, { directory: store.directory })
  t.deepEqual(again.list(), store.list())
  t.deepEqual(again.find(sha256('one')), saved)
  t.is(again.find(sha256('three')), undefined)
  t.is(again.names().length, 3)
})

test('save() of the same content again makes it the newest, once', async (t) => {
  const store = await openStore(t)
  for (const text of ['one', 'two', 'one']) await store.put(text)
  t.deepEqual(store.contents(), ['one', 'two'])
  t.is(store.names().length, 2)
  const again = await openStore(t, { directory: store.directory })
  t.deepEqual(again.contents(), ['one', 'two'])
})

test('save() refuses what is not what was said, and leaves nothing', async (t) => {
  const store = await openStore(t, { maxBytes: 10 })
  const about = { clusterId: CLUSTER, mac: MAC, sha256: sha256('other') }
  await t.throwsAsync(store.save(stream('one'), about), { code: 'invalid-input', message: /its sha256 is/ })
  await t.throwsAsync(store.save(stream(''), { ...about, sha256: sha256('') }), { code: 'invalid-input' })
  await t.throwsAsync(store.put('eleven byte'), { code: 'too-large' })
  await t.throwsAsync(store.put('x', '../../../../etc'), { code: 'invalid-input' })
  async function* cut() {
    yield Buffer.from('on')
    throw new Error('the connection was cut')
  }
  await t.throwsAsync(store.save(cut(), about), { message: /was cut/ })
  t.deepEqual(store.names(), [])
  await store.put('ten bytes!')
  t.deepEqual(store.contents(), ['ten bytes!'])
})

test('save() says that the disk is full, and loses nothing', async (t) => {
  const directory = tempFolder(t)
  await run('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', directory])
  t.teardown(() => run('umount', ['--lazy', directory]))
  const store = await openStore(t, { directory })
  await store.put('small')
  const error = await t.throwsAsync(store.put('x'.repeat(2_000_000)), {
    instanceOf: KitError,
    code: 'unavailable',
  })
  t.regex(error.message, /the disk of .* is full/)
  t.deepEqual(store.contents(), ['small'])
  t.is(store.names().length, 1)
  await store.put('another')
  t.deepEqual(store.contents(), ['another', 'small'])
})

test('prune() goes by count', async (t) => {
  const store = await openStore(t)
  for (const text of ['1', '2', '3', '4', '5']) await store.put(text)
  await store.prune(sha256('1'))
  t.deepEqual(store.contents(), ['5', '4', '3', '1'])
  await store.prune()
  t.deepEqual(store.contents(), ['5', '4', '3'])
})

test('prune() goes by age, and never takes the newest', async (t) => {
  const store = await openStore(t, { keep: 100 })
  for (const text of ['1', '2', '3', '4', '5']) {
    await store.put(text)
    store.clock.turn(2 * DAY_MS)
  }
  await store.prune() // now 10 days after the first, 8 after the second
  t.deepEqual(store.contents(), ['5', '4', '3'])
  store.clock.turn(1000 * DAY_MS)
  await store.prune()
  t.deepEqual(store.contents(), ['5', '4', '3'])
})

test('a clock that goes back does not make an old snapshot the newest', async (t) => {
  const store = await openStore(t, { keep: 1 })
  await store.put('before')
  store.clock.turn(-1000 * DAY_MS)
  await store.put('after')
  await store.prune()
  t.deepEqual(store.contents(), ['after'])
  const again = await openStore(t, { directory: store.directory })
  t.deepEqual(again.contents(), ['after'])
})

test('snapshots of another cluster do not push out those of this one', async (t) => {
  const store = await openStore(t, { keep: 2 })
  await store.put('old 1')
  for (const text of ['1', '2', '3']) await store.put(text, 'fedcba9876543210')
  await store.prune()
  t.deepEqual(store.contents(), ['3', '2', 'old 1'])
})

test('superfluous() keeps the newest of each cluster and the excepted one, whatever the clock says', (t) => {
  const snapshot = fc.record({
    number: fc.integer({ min: 1, max: 1e9 }),
    takenMs: fc.integer({ min: 0, max: 1e14 }),
    clusterId: fc.constantFrom('a'.repeat(16), 'b'.repeat(16)),
    mac: fc.constant(MAC),
    sha256: fc.string({ unit: fc.constantFrom('a', '0'), minLength: 64, maxLength: 64 }),
  })
  const snapshots = fc.uniqueArray(snapshot, { selector: ({ number }) => number, maxLength: 20 })
  const rules = fc.record({ keep: fc.integer({ min: 1, max: 30 }), days: fc.integer({ min: 1, max: 100 }) })
  fc.assert(
    fc.property(snapshots, rules, fc.integer({ min: 0, max: 1e14 }), fc.nat(), (all, rule, nowMs, pick) => {
      const except = all[pick % Math.max(all.length, 1)]?.sha256
      const gone = superfluous(all, rule, { nowMs, ...(except !== undefined && { except }) })
      const left = all.filter((each) => !gone.includes(each))
      for (const ofOne of Map.groupBy(all, ({ clusterId }) => clusterId).values()) {
        const newest = Math.max(...ofOne.map(({ number }) => number))
        if (!left.some(({ number }) => number === newest)) return false
      }
      return !gone.some((each) => each.sha256 === except)
    }),
    { numRuns: 300 },
  )
  t.pass()
})

test('findSnapshotName() undoes formatSnapshotName(), and knows no other names', (t) => {
  const name = {
    number: 7,
    takenMs: 1_700_000_000_000,
    clusterId: CLUSTER,
    mac: MAC,
    sha256: 'ab'.repeat(32),
  }
  t.deepEqual(findSnapshotName(formatSnapshotName(name)), name)
  fc.assert(
    fc.property(fc.string(), (text) => findSnapshotName(text) === undefined),
    { numRuns: 300 },
  )
})

const PROJECT = fileURLToPath(new URL('../..', import.meta.url))
const CHILD = `
import { createSnapshotStore } from '#snapshots/snapshot-store.ts'
import { systemClock } from '#lib/clock.ts'
import { silentLog } from '#lib/log.ts'
import { createHash } from 'node:crypto'
const store = createSnapshotStore({ directory: process.argv[1], keep: 3, days: 7, clock: systemClock, log: silentLog })
await store.start()
for (let turn = 0; ; turn++) {
  const bytes = Buffer.alloc(300_000, 'snapshot ' + turn + ' ')
  const sha256 = createHash('sha256').update(bytes).digest('hex')
  const content = (async function* () { for (let at = 0; at < bytes.length; at += 50_000) { console.log(turn + ' ' + at); yield bytes.subarray(at, at + 50_000) } })()
  await store.save(content, { clusterId: '${CLUSTER}', mac: '${MAC}', sha256 })
  console.log(turn + ' saved')
  await store.prune()
  console.log(turn + ' pruned')
}
`

test('a server that is killed leaves whole snapshots only', async (t) => {
  const directory = join(tempFolder(t), 'snapshots')
  for (const at of ['0 250000', '0 saved', '5 100000', '6 saved', '4 pruned']) {
    const args = ['--input-type=module', '--eval', CHILD, directory]
    const child = spawn(process.execPath, args, { cwd: PROJECT, stdio: ['ignore', 'pipe', 'inherit'] })
    onLines(child.stdout, (line) => line === at && child.kill('SIGKILL'))
    await once(child, 'exit')
    const store = await openStore(t, { directory })
    t.is(store.names().length, store.list().length, at)
    for (const { file, sha256: digest } of store.list()) t.is(sha256(readFileSync(file)), digest, at)
    if (at !== '0 250000') t.true(store.list().length > 0)
  }
})
