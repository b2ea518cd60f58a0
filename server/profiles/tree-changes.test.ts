// Tests of how the profile tree notices changes, and of whom it tells.

import { mkdir, rename } from 'node:fs/promises'
import { join } from 'node:path'

import test from 'ava'

import { type Clock, systemClock } from '#lib/clock.ts'
import { GOOD, mac, startTree } from '#testing/profile-tree.ts'

test('createProfileTree() notices a change without a watch when it reads again', async (t) => {
  const { tree, write } = await startTree(t, GOOD, { rereadMs: 20 })
  const seen = new Promise<void>((resolve) => {
    tree.onChange(() => tree.profileFor(mac).settings.get('console')?.value === 'ttyS2' && resolve())
  })
  await write({ 'roles/worker/console': 'ttyS2' })
  await seen
  t.pass()
})

/** What the tree reads again is up to the test; between two readings nothing else happens. */
class RereadClock implements Clock {
  readonly rereadMs = 12_345
  /** How much later than now it is said to be: changes are no longer fresh then. */
  aheadMs = 60_000
  #action = () => {}
  #scheduled = () => {}

  nowMs(): number {
    return Date.now() + this.aheadMs
  }

  monotonicMs(): number {
    return systemClock.monotonicMs()
  }

  after(delayMs: number, action: () => void): () => void {
    if (delayMs !== this.rereadMs) return () => {} // the watch: it never tells
    this.#action = action
    this.#scheduled()
    return () => {}
  }

  /** Resolves when the tree has been read once more. */
  async reread(): Promise<void> {
    const scheduled = new Promise<void>((resolve) => {
      this.#scheduled = resolve
    })
    this.#action()
    await scheduled
  }
}

test('onChange() is called for real changes only, with and without a watch', async (t) => {
  const clock = new RereadClock()
  const { tree, told, directory, write } = await startTree(
    t,
    { ...GOOD, 'roles/worker/root/etc/motd': 'one', 'roles/worker/root.attributes': '' },
    { clock, rereadMs: clock.rereadMs },
  )
  let calls = 0
  tree.onChange(() => {
    calls += 1
  })
  const callsOf = async (change: () => Promise<unknown>) => {
    const before = calls
    await change()
    await clock.reread()
    return calls - before
  }
  const rows: readonly (readonly [string, number, () => Promise<unknown>])[] = [
    ['nothing', 0, async () => {}],
    ['a file of the overlay', 1, () => write({ 'roles/worker/root/etc/motd': 'two' })],
    ['nothing since', 0, async () => {}],
    ['attributes', 1, () => write({ 'roles/worker/root.attributes': '/etc/motd mode=0600' })],
    ['a new folder', 1, () => mkdir(join(directory, 'roles/worker/root/srv'))],
    ['a setting', 1, () => write({ 'roles/worker/console': 'ttyS1' })],
    ['the same setting again', 0, () => write({ 'roles/worker/console': 'ttyS1 ' })],
    ['a problem', 1, () => write({ 'roles/worker/boot': 'nonsense' })],
    ['the overlay of a layer in error', 1, () => write({ 'roles/worker/root/etc/motd': 'three' })],
    ['the tree goes away', 1, () => rename(directory, `${directory}.away`)],
    ['it is still away', 0, async () => {}],
    ['it is back', 1, () => rename(`${directory}.away`, directory)],
  ]
  for (const [title, expected, change] of rows) t.is(await callsOf(change), expected, title)
  t.is(
    told.filter(({ message }) => message === 'roles/worker: files of the overlay or secrets changed').length,
    4,
  )
})

test('onChange() is called once more after a change that another may have followed unseen', async (t) => {
  const clock = new RereadClock()
  const { tree, write, told } = await startTree(t, GOOD, { clock, rereadMs: clock.rereadMs })
  let calls = 0
  tree.onChange(() => {
    calls += 1
  })
  clock.aheadMs = 0
  await write({ 'roles/worker/root/etc/motd': 'one' })
  await clock.reread()
  t.is(calls, 1)
  clock.aheadMs = 60_000
  await clock.reread()
  t.is(calls, 2, 'the file may have been written again within the same tick')
  await clock.reread()
  t.is(calls, 2)
  t.is(told.length, 1)
})

test('a listener that throws keeps neither the others nor the server from going on', async (t) => {
  const { tree } = await startTree(t, GOOD)
  let heard = false
  tree.onChange(() => {
    throw new Error('a listener that breaks the rule')
  })
  tree.onChange(() => {
    heard = true
  })
  await tree.assignRole(mac, 'gpu')
  t.true(heard)
})

test('onChange() is called when a file of an overlay changes', async (t) => {
  const { tree, next, write } = await startTree(t, GOOD)
  const called = new Promise<void>((resolve) => {
    const unsubscribe = tree.onChange(() => {
      unsubscribe()
      resolve()
    })
  })
  const changed = next('profile-changed')
  await write({ 'roles/worker/root/etc/motd': 'hello' })
  t.like(await changed, { message: 'roles/worker: files of the overlay or secrets changed' })
  await called
})
