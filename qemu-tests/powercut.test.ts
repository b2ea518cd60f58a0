// The power is cut while machines are installed, updated, given another bundle and made new: they always come up again.
//
// Six points in every run; KATESKIT_POWER_CUTS=<n> (npm run test:powercut) takes n more by chance, KATESKIT_SEED repeats them.

import { appendFile, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import test from 'ava'

import { liveThrough } from './cut-life.ts'
import { CUT_PHASES, drawCutPoints, EVERY_RUN, randomNumbers } from './cut-points.ts'
import { buildVariant } from './image-variants.ts'
import { INSTALLED_FILES } from './installed-lan.ts'
import { machineFiles } from './profile-files.ts'
import { BIOS, imageFolder, scratchFolder, startTestLan, UEFI } from './test-lan.ts'
import { loseUnflushed, withWriteLog } from './write-log.ts'

test('drawCutPoints() draws the same points for the same seed, and leaves no phase out', (t) => {
  const drawn = drawCutPoints(7, { count: 60, lives: 2 })
  t.deepEqual(drawn, drawCutPoints(7, { count: 60, lives: 2 }))
  t.notDeepEqual(drawn, drawCutPoints(8, { count: 60, lives: 2 }))
  for (const life of drawn) {
    t.is(life.length, 30)
    t.deepEqual(new Set(life.map(({ phase }) => phase)), new Set(CUT_PHASES))
  }
})

test('loseUnflushed() keeps what was flushed, and of the rest what chance leaves', async (t) => {
  const folder = await scratchFolder(t)
  const disk = { file: join(folder, 'disk'), sizeBytes: 4096 }
  const write = (sector: number, text: string) => [
    logEntry(sector, 1, 0),
    Buffer.concat([Buffer.from(text)], 512),
  ]
  const flush = logEntry(0, 0, 1)
  for (const [chance, expected] of [
    [0, ['flushed', 'old', 'forced']],
    [0.5, ['flushed', 'new', 'forced']],
  ] as const) {
    await writeFile(disk.file, Buffer.concat([Buffer.alloc(512), Buffer.concat([Buffer.from('old')], 3584)]))
    const { writeLog } = await withWriteLog(disk)
    const forced = [logEntry(2, 1, 2), Buffer.concat([Buffer.from('forced')], 512)]
    const cut = write(0, 'cut in the middle').slice(0, 1)
    const entries = [...write(0, 'flushed'), flush, ...write(1, 'new'), ...forced, ...cut]
    await appendFile(writeLog ?? '', Buffer.concat(entries))
    await loseUnflushed(disk, () => chance)
    const content = await readFile(disk.file)
    t.deepEqual(
      [0, 512, 1024].map((at) => content.toString('latin1', at, at + 512).replace(/\0+$/, '')),
      [...expected],
    )
  }
})

function logEntry(sector: number, sectors: number, flags: number): Buffer {
  const entry = Buffer.alloc(512)
  for (const [index, value] of [sector, sectors, flags].entries())
    entry.writeBigUInt64LE(BigInt(value), index * 8)
  return entry
}

test('a machine whose power is cut comes up again with its last good system or the new one', async (t) => {
  const images = new Map<string, string>()
  const folders = [await imageFolder(), await buildVariant('next')]
  for (const folder of folders) {
    const manifest = JSON.parse(await readFile(join(folder, 'manifest.json'), 'utf8')) as {
      readonly version: string
      readonly rootHash: string
    }
    images.set(manifest.version, manifest.rootHash)
  }
  const machines = [BIOS, UEFI]
  const lan = await startTestLan(t, {
    mode: 'server',
    files: {
      ...INSTALLED_FILES,
      ...Object.assign({}, ...machines.map(({ mac, name }) => machineFiles(mac, { channel: `${name}\n` }))),
    },
  })
  for (const folder of folders.slice(1)) await lan.fleet.importImage(folder)
  const [first = ''] = images.keys()
  for (const { name } of machines) await lan.fleet.promote(first, name)

  const seed = Number(process.env['KATESKIT_SEED'] ?? Date.now() % 2 ** 31)
  const count = Number(process.env['KATESKIT_POWER_CUTS'] ?? 0)
  t.log(`${count} cuts by chance; the same once more: KATESKIT_SEED=${seed}`)
  const drawn = drawCutPoints(seed, { count, lives: machines.length })
  const random = randomNumbers(seed)
  const lives = machines.map((machine, index) =>
    liveThrough(lan, { machine, channel: machine.name, images, random, say: (line) => t.log(line) }, [
      ...(EVERY_RUN[index] ?? []),
      ...(drawn[index] ?? []),
    ]),
  )
  const failed = (await Promise.allSettled(lives)).flatMap((life) =>
    life.status === 'rejected' ? [life.reason as Error] : [],
  )
  for (const error of failed) t.log(`${error.message}\n${String(error.cause)}`)
  t.deepEqual(
    failed.map(({ cause }) => String(cause)),
    [],
  )
})
