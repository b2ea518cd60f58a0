import { access, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import test from 'ava'

import { KitError } from '#lib/errors.ts'

import { findCgroups, makeCgroups } from './container-cgroups.ts'

async function mountPoint(t: { teardown(end: () => Promise<void>): void }): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'kateskit-cgroups-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  return folder
}

test('findCgroups() tells version 1 by its hierarchies', async (t) => {
  const folder = await mountPoint(t)
  for (const name of ['systemd', 'memory', 'no-hierarchy']) await mkdir(join(folder, name))
  for (const name of ['systemd', 'memory']) await writeFile(join(folder, name, 'cgroup.procs'), '')
  const host = await findCgroups(folder)
  t.is(host.version, 'v1')
  t.deepEqual([...host.roots].sort(), [join(folder, 'memory'), join(folder, 'systemd')])
})

test('findCgroups() tells version 2 by its controllers, and names those that are missing', async (t) => {
  const folder = await mountPoint(t)
  await writeFile(join(folder, 'cgroup.controllers'), 'cpuset cpu io memory pids\n')
  t.deepEqual(await findCgroups(folder), { version: 'v2', roots: [folder] })
  await writeFile(join(folder, 'cgroup.controllers'), 'memory pids\n')
  const error = { instanceOf: KitError, message: /: cgroup v2 has no controller cpuset, cpu, io here$/ }
  await t.throwsAsync(findCgroups(folder), error)
})

test('findCgroups() says what it found where containers cannot be had', async (t) => {
  const folder = await mountPoint(t)
  await t.throwsAsync(findCgroups(folder), { message: /has no cgroups$/ })
  await mkdir(join(folder, 'unified'))
  await writeFile(join(folder, 'unified', 'cgroup.procs'), '')
  await t.throwsAsync(findCgroups(folder), { message: /has only the cgroups unified$/ })
})

test('makeCgroups() passes the controllers of version 2 on to the machine', async (t) => {
  const folder = await mountPoint(t)
  const { version, folders } = await makeCgroups({ version: 'v2', roots: [folder] }, 'one')
  t.deepEqual([version, folders], ['v2', [join(folder, 'kateskit-lab', `${process.pid}`, 'one')]])
  for (const place of ['.', 'kateskit-lab', `kateskit-lab/${process.pid}`]) {
    t.is(
      await readFile(join(folder, place, 'cgroup.subtree_control'), 'utf8'),
      '+cpuset +cpu +io +memory +pids',
    )
  }
})

test('makeCgroups() makes real ones, which are gone afterwards with all that is in them', async (t) => {
  const host = await findCgroups()
  const cgroups = await makeCgroups(host, 'one')
  for (const folder of cgroups.folders) await mkdir(join(folder, 'pods', 'pod1'), { recursive: true })
  t.is(cgroups.folders.length, host.roots.length)
  await cgroups.remove()
  for (const folder of cgroups.folders) await t.throwsAsync(access(folder))
})
