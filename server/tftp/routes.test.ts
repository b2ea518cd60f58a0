// What names the routes know.

import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import test from 'ava'

import type { Image } from '#machine/ports.ts'
import { LOOPBACK, scratch } from '#testing/tftp-service.ts'

import { autoexecRoute, firstRoute, loaderRoute } from './routes.ts'

test('loaderRoute() reads a loader once and again when the image changes', async (t) => {
  const file = join(await scratch(t), 'snponly.efi')
  const image = (sha256: string): Image => ({
    version: '1',
    arch: 'amd64',
    files: new Map([['ipxe/snponly.efi', { name: 'ipxe/snponly.efi', sizeBytes: 3, sha256, file }]]),
  })
  let current: Image | undefined
  const route = loaderRoute({ current: () => current })
  t.is(await route('snponly.efi', LOOPBACK), undefined, 'no image')
  current = image('aa')
  await t.throwsAsync(
    route('snponly.efi', LOOPBACK),
    { code: 'ENOENT' },
    'a file that is missing is an error',
  )
  await writeFile(file, 'one')
  const first = await route('snponly.efi', LOOPBACK)
  t.is(String(first), 'one')
  await writeFile(file, 'two')
  t.is(await route('snponly.efi', LOOPBACK), first, 'shared by all')
  current = image('bb')
  t.is(String(await route('snponly.efi', LOOPBACK)), 'two')
  for (const name of ['ipxe/snponly.efi', 'undionly.kpxe', 'constructor', '../snponly.efi']) {
    t.is(await route(name, LOOPBACK), undefined, name)
  }
})

test('firstRoute() asks in order and autoexecRoute() always knows its one name', async (t) => {
  const lookup = firstRoute([autoexecRoute(() => '#!ipxe\n'), async (name) => Buffer.from(`other ${name}`)])
  t.is(String(await lookup('autoexec.ipxe', LOOPBACK)), '#!ipxe\n')
  t.is(String(await lookup('else', LOOPBACK)), 'other else')
})
