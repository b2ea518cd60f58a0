// Tests of bundles over time: fresh, shared, kept, replaced, removed.

import { execFileSync } from 'node:child_process'
import { appendFile, lstat, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import test from 'ava'

import { type Clock, systemClock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import type { Bundle } from '#machine/ports.ts'
import { mac, makeOverlays, other, run, unpack, writeFiles } from '#testing/overlay-layers.ts'

import { createJoinedWork } from './joined-work.ts'

test('bundleFor() is never older than the files', async (t) => {
  const { home, overlays } = await makeOverlays(t, { 'low/root/count': '000' })
  const seen = new Set<string>()
  for (let count = 0; count < 50; count += 1) {
    // The same size and often the same time stamp: only the content differs.
    await writeFile(join(home, 'low/root/count'), String(count).padStart(3, '0'))
    seen.add((await overlays.bundleFor(mac)).digest)
  }
  t.is(seen.size, 50)
})

test('bundleFor() gives machines with the same overlay the same archive', async (t) => {
  const layers = { [mac]: ['low', 'high'], [other]: ['low'] }
  const { overlays, directory } = await makeOverlays(t, { 'low/root/a': '', 'high/boot': 'live' }, { layers })
  const [first, second] = await Promise.all([overlays.bundleFor(mac), overlays.bundleFor(other)])
  t.deepEqual(first, second)
  t.deepEqual(await readdir(directory), [`${first.digest}.tar`, 'machines.json'])
  t.is((await lstat(first.file)).size, first.sizeBytes)
  const { stdout } = await run('sha256sum', [first.file])
  t.is(stdout.slice(0, 64), first.digest)
})

test('bundleFor() makes an empty bundle when no layer has an overlay', async (t) => {
  const { overlays } = await makeOverlays(t, {})
  t.deepEqual(await unpack(t, await overlays.bundleFor(mac)), [])
})

test('refresh() tells of a new bundle, keeps the previous one and removes older ones', async (t) => {
  const { home, overlays, told, directory } = await makeOverlays(t, { 'low/root/a': '1' })
  const digests: string[] = []
  for (const content of ['1', '2', '2', '3']) {
    await writeFile(join(home, 'low/root/a'), content)
    await overlays.refresh([mac])
    digests.push((await overlays.bundleFor(mac)).digest)
  }
  const [first = '', second = '', , third = ''] = digests
  t.deepEqual(
    told.map(({ kind, data }) => [kind, data?.['previous'], data?.['bundle']]),
    [
      ['bundle-changed', first, second],
      ['bundle-changed', second, third],
    ],
  )
  t.is(await overlays.findBundle(first), undefined)
  t.is((await overlays.findBundle(second))?.digest, second)
  t.is((await overlays.findBundle(third))?.file, join(directory, `${third}.tar`))
  t.is(await overlays.findBundle('../../etc/passwd'), undefined)
})

test('bundleFor() keeps the last good bundle while a layer is in error, also over a restart', async (t) => {
  const { home, overlays, told, create } = await makeOverlays(t, { 'low/root/a': '1' })
  const good = await overlays.bundleFor(mac)
  await writeFiles(home, { 'low/root/a': '2', 'low/root/.wh.b': '' })
  t.deepEqual(await overlays.bundleFor(mac), good)
  t.deepEqual(await overlays.bundleFor(mac), good)
  t.deepEqual(await create().bundleFor(mac), good)
  await rm(join(home, 'low'), { recursive: true })
  t.deepEqual(await overlays.bundleFor(mac), good)
  await writeFiles(home, { 'low/root/a': '2' })
  t.not((await overlays.bundleFor(mac)).digest, good.digest)
  t.deepEqual(
    told.map(({ kind }) => kind),
    ['profile-broken', 'profile-broken', 'profile-broken', 'profile-mended', 'bundle-changed'],
  )
})

test('bundleFor() takes no bundle of other layers for the last good one', async (t) => {
  const layers = { [mac]: ['low'] }
  const { home, overlays } = await makeOverlays(t, { 'low/root/a': '1', 'high/root/.wh.b': '' }, { layers })
  await overlays.bundleFor(mac)
  layers[mac] = ['low', 'high']
  await t.throwsAsync(overlays.bundleFor(mac), { instanceOf: KitError, code: 'conflict' })
  t.truthy(home)
})

test('bundleFor() makes a sound archive of a file that grows all the time', async (t) => {
  const { home, overlays } = await makeOverlays(t, { 'low/root/log': 'line\n'.repeat(100_000) })
  const file = join(home, 'low/root/log')
  let isDone = false
  const growing = (async () => {
    while (!isDone) await appendFile(file, 'line\n')
  })()
  const result = await overlays.bundleFor(mac).catch((error: unknown) => error)
  isDone = true
  await growing
  // Either it fell between two writes or it was given up; a torn archive is neither.
  if (result instanceof KitError) t.regex(result.message, /low\/root\/log changed while it was read/)
  else t.regex((await unpack(t, result as Bundle))[0] ?? '', /^log 644 0:0 (line\n)+$/)
  t.true((await unpack(t, await overlays.bundleFor(mac))).length > 0)
})

test('createOverlays() removes archives that an earlier run left unfinished', async (t) => {
  const { overlays, directory } = await makeOverlays(t, { 'bundles/.tmp-0011': 'half', 'low/root/a': '' })
  await overlays.bundleFor(mac)
  t.false((await readdir(directory)).includes('.tmp-0011'))
})

test('createOverlays() says where when the directory cannot be made', async (t) => {
  const { overlays } = await makeOverlays(t, { file: '' }, { directory: '/dev/null/bundles' })
  await t.throwsAsync(overlays.bundleFor(mac), { code: 'unavailable', message: /\/dev\/null\/bundles/ })
})

test('a bundle that was given up is kept anew from the moment somebody asks for it again', async (t) => {
  let nowMs = Date.now()
  const clock: Clock = { ...systemClock, nowMs: () => nowMs }
  const { home, overlays } = await makeOverlays(t, { 'low/root/a': '1' }, { clock, graceMs: 1000 })
  const digests: string[] = []
  for (const content of ['1', '2', '3']) {
    await writeFile(join(home, 'low/root/a'), content)
    digests.push((await overlays.bundleFor(mac)).digest)
  }
  const [first = ''] = digests
  nowMs += 5000
  t.truthy(await overlays.findBundle(first), 'nothing has changed since, so nothing was removed')
  await writeFile(join(home, 'low/root/a'), '4')
  await overlays.bundleFor(mac)
  t.truthy(await overlays.findBundle(first), 'a machine is fetching it')
  nowMs -= 3_600_000
  await writeFile(join(home, 'low/root/a'), '5')
  await overlays.bundleFor(mac)
  t.is(await overlays.findBundle(first), undefined, 'a clock that was set back keeps nothing for ever')
})

test('bundleFor() gives a machine its bundle although the index cannot be written, and writes it later', async (t) => {
  const { home, directory, overlays, told } = await makeOverlays(t, { 'low/root/a': '1' })
  await overlays.bundleFor(mac)
  const index = join(directory, 'machines.json')
  await rm(index)
  await mkdir(index) // a rename onto a folder fails, for root too
  await writeFile(join(home, 'low/root/a'), '2')
  const { digest } = await overlays.bundleFor(mac)
  t.deepEqual(
    told.map(({ kind }) => kind),
    ['bundle-changed'],
  )
  await rm(index, { recursive: true })
  t.is((await overlays.bundleFor(mac)).digest, digest)
  t.true((await readFile(index, 'utf8')).includes(digest))
  t.deepEqual(
    told.map(({ kind }) => kind),
    ['bundle-changed'],
  )
})

test('a full disk costs archives that no machine has before it costs a new bundle, and no last good one', async (t) => {
  const { home } = await makeOverlays(t, { 'low/root/file': '' })
  // A file system of 1 MiB in a mount namespace of its own, which ends with the process.
  const script = `
    import { readdirSync, writeFileSync } from 'node:fs'
    import { createOverlays } from '#overlays/overlays.ts'
    const [low, log] = ['${home}/low', { warn: console.log, error: console.log }]
    const overlays = createOverlays({
      directory: '/mnt/bundles', log, graceMs: 3_600_000,
      sources: { layersFor: () => [{ layer: 'low', directory: low }] },
      events: { append: async () => {} },
    })
    const made = []
    for (const letter of 'abcdef') {
      writeFileSync(low + '/root/file', letter.repeat(200_000))
      made.push((await overlays.bundleFor('02:00:00:00:00:01')).digest)
    }
    const left = readdirSync('/mnt/bundles').filter((name) => name.endsWith('.tar')).length
    writeFileSync(low + '/root/file', 'x'.repeat(700_000))
    const { digest } = await overlays.bundleFor('02:00:00:00:00:01')
    console.log(new Set(made).size, left < 5, digest === made.at(-1), overlays.problems()[0].message)`
  const mount = 'mount -t tmpfs -o size=1m none /mnt && exec "$@"'
  const command = ['--mount', 'sh', '-c', mount, 'sh', process.execPath, '--input-type=module', '-e', script]
  const said = '6 true true Cannot pack the overlay: no space is left in /mnt/bundles'
  t.is(execFileSync('unshare', command, { encoding: 'utf8' }).trim(), said)
})

test('createJoinedWork() answers all who come while it runs with one later run', async (t) => {
  let runs = 0
  let finish = () => {}
  const work = createJoinedWork(
    (key: string) => key,
    async (key) => {
      runs += 1
      const run = runs
      await new Promise<void>((resolve) => {
        finish = resolve
      })
      if (run === 3) throw new Error(`run ${run} of ${key}`)
      return run
    },
  )
  const first = work('a')
  const later = [work('a'), work('a')]
  t.is(runs, 1)
  finish()
  t.is(await first, 1)
  finish()
  t.deepEqual(await Promise.all(later), [2, 2])
  const failing = work('a')
  const afterFailure = work('a')
  finish()
  await t.throwsAsync(failing, { message: 'run 3 of a' })
  finish()
  t.is(await afterFailure, 4)
})
