// Imports that end in the middle: on a full disk, by a kill, by a stop. What was there before stays, and nothing half comes to it.

import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

import test from 'ava'

import { KitError } from '#lib/errors.ts'
import { onLines } from '#lib/process.ts'
import { oneImage, openRegistry, tempFolder, writeFolder, writeTar } from '#testing/oci-archive.ts'

const run = promisify(execFile)
const PAUSE = 'registry.k8s.io/pause:3.9'

test('startImport() says that the disk is full, and loses nothing', async (t) => {
  const home = tempFolder(t)
  await run('mount', ['-t', 'tmpfs', '-o', 'size=100m', 'tmpfs', home])
  t.teardown(() => run('umount', ['--lazy', home]))
  const registry = await openRegistry(t, { directory: join(home, 'registry') })
  await registry.bring(writeFolder(tempFolder(t), oneImage(PAUSE, 'small')))
  const big = oneImage('a.io/big:1', 'x'.repeat(60_000_000))
  for (const source of [await writeTar(tempFolder(t), 'bomb.tar.gz', big), writeFolder(tempFolder(t), big)]) {
    const error = await t.throwsAsync(registry.bring(source), { instanceOf: KitError, code: 'no-space' })
    t.regex(error.message, /the disk of .* is full/)
    t.deepEqual(registry.stored('incoming'), [])
    t.deepEqual(registry.names(), [PAUSE])
    t.deepEqual((await registry.verify())[0]?.problems, [])
  }
  // To the last byte: what is watched for is the rest of the server, whatever else fills the disk comes beside.
  writeFileSync(join(home, 'other'), Buffer.alloc(90_000_000))
  await t.throwsAsync(registry.bring(writeFolder(tempFolder(t), oneImage('a.io/b:1', 'tiny'))), {
    code: 'no-space',
  })
  t.deepEqual((await registry.verify())[0]?.problems, [])
  rmSync(join(home, 'other'))
  t.deepEqual(await registry.bring(writeFolder(tempFolder(t), oneImage('a.io/b:1', 'tiny'))), ['a.io/b:1'])
})

const PROJECT = fileURLToPath(new URL('../..', import.meta.url))
const CHILD = `
import { createRegistry } from '#registry/registry.ts'
import { systemClock } from '#lib/clock.ts'
import { silentLog } from '#lib/log.ts'
const [directory, source] = process.argv.slice(1)
const registry = createRegistry({ directory, clock: systemClock, log: silentLog })
await registry.start()
const id = registry.startImport(source)
for (let told = ''; ; await new Promise(setImmediate)) {
  const { state, text, percent } = registry.importProgress(id)
  const line = percent + ' ' + text
  if (line !== told) process.stdout.write((told = line) + '\\n')
  if (state !== 'running') break
}
await new Promise((resolve) => setTimeout(resolve, 10_000))
`

test('a server that is killed leaves whole images only, and the next one can import', async (t) => {
  const directory = join(tempFolder(t), 'registry')
  const layers = ['a', 'b', 'c'].map((letter) => letter.repeat(1_000_000))
  const source = await writeTar(tempFolder(t), 'x.tar', oneImage(PAUSE, ...layers))
  for (const at of [/^[1-4]\d /, /^[5-8]\d /, / registry\.k8s/, /writing to the disk$/, /^100 /]) {
    const args = ['--input-type=module', '--eval', CHILD, directory, source]
    const child = spawn(process.execPath, args, { cwd: PROJECT, stdio: ['ignore', 'pipe', 'inherit'] })
    onLines(child.stdout, (line) => at.test(line) && child.kill('SIGKILL'))
    const [, signal] = await once(child, 'exit')
    t.is(signal, 'SIGKILL', `${at}`)
    const registry = await openRegistry(t, { directory })
    for (const { problems } of await registry.verify()) t.deepEqual(problems, [], `${at}`)
    t.is(registry.stored('blobs').length, registry.names().length * 5, `${at}`)
    t.deepEqual(registry.stored('incoming'), [])
    t.deepEqual(await registry.bring(source), [PAUSE])
    t.deepEqual((await registry.verify())[0]?.problems, [])
    await registry.remove(PAUSE)
    await registry.stop()
  }
})

test('stop() ends an import, and says so', async (t) => {
  const registry = await openRegistry(t)
  const file = await writeTar(tempFolder(t), 'x.tar', oneImage(PAUSE, 'x'.repeat(5_000_000)))
  const work = registry.bring(file)
  await registry.stop()
  await t.throwsAsync(work, { code: 'unavailable', message: /asked to stop/ })
  t.deepEqual(registry.stored('incoming'), [])
})
