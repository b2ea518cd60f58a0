// Tests of bundles over time: fresh, shared, kept, replaced, removed.

import { appendFile, lstat, readdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import test from 'ava'

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
