// The power is cut while machines are installed, updated, given another bundle and made new: they always come up again.
//
// Six points in every run; KATESKIT_POWER_CUTS=<n> (npm run test:powercut) takes n more by chance, KATESKIT_SEED repeats them.

import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

import test from 'ava'

import { liveThrough } from './cut-life.ts'
import { CUT_PHASES, type CutPoint, drawCutPoints, EVERY_RUN } from './cut-points.ts'
import { buildVariant } from './image-variants.ts'
import { INSTALLED_FILES } from './installed-lan.ts'
import { machineFiles } from './profile-files.ts'
import { BIOS, imageFolder, startTestLan, UEFI } from './test-lan.ts'

test('drawCutPoints() draws the same points for the same seed, and leaves no phase out', (t) => {
  const drawn = drawCutPoints(7, { count: 60, lives: 2 })
  t.deepEqual(drawn, drawCutPoints(7, { count: 60, lives: 2 }))
  t.notDeepEqual(drawn, drawCutPoints(8, { count: 60, lives: 2 }))
  for (const life of drawn) {
    t.is(life.length, 30)
    t.deepEqual(new Set(life.map(({ phase }) => phase)), new Set(CUT_PHASES))
  }
})

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

  const drawn = drawMore((line) => t.log(line))
  const lives = machines.map((machine, index) =>
    liveThrough(lan, { machine, channel: machine.name, images, say: (line) => t.log(line) }, [
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

function drawMore(say: (line: string) => void): readonly (readonly CutPoint[])[] {
  const count = Number(process.env['KATESKIT_POWER_CUTS'] ?? 0)
  if (count === 0) return []
  const seed = Number(process.env['KATESKIT_SEED'] ?? Date.now() % 2 ** 31)
  say(`${count} more cuts; the same ones again: KATESKIT_SEED=${seed} npm run test:powercut`)
  return drawCutPoints(seed, { count, lives: 2 })
}
