// UEFI: HTTP boot without TFTP, an image that is damaged in the store and mended, and a machine that nobody knows.

import { open } from 'node:fs/promises'
import { join } from 'node:path'

import test from 'ava'
import { BOOT_TIMEOUT_MS } from './event-watch.ts'
import { digestOf, makeLocalDisk } from './local-disk.ts'
import { machineFiles } from './profile-files.ts'
import { imageFolder, startTestLan, UEFI, UEFI_2 } from './test-lan.ts'

test('a UEFI HTTP boot survives a damaged image, and an unknown UEFI machine goes on untouched', async (t) => {
  const lan = await startTestLan(t, {
    mode: 'server',
    files: {
      'defaults/boot': 'live\n',
      'roles/worker/root/etc/kit-test/role': 'worker\n',
      ...machineFiles(UEFI.mac, { role: 'worker\n' }),
    },
  })
  const { client } = lan.network.server
  const kept = join(
    lan.network.folder,
    'images/files',
    await digestOf(join(await imageFolder(), 'root.squashfs')),
  )
  await flipLastByte(kept)
  const disk = join(lan.network.folder, 'foreign-disk.img')
  await makeLocalDisk(disk)
  const before = await digestOf(disk)
  const [known, unknown] = await Promise.all([
    lan.powerOn(UEFI, { networkBoot: 'http' }),
    lan.powerOn(UEFI_2, { disks: [{ file: disk }] }),
  ])

  t.is((await lan.waitFor('boot-script-sent', UEFI_2.mac)).data['plan'], 'local-disk')
  await unknown.waitFor(/Shell>/, BOOT_TIMEOUT_MS) // OVMF's next boot option after a disk without a boot loader
  t.is(await digestOf(disk), before, 'the disk is byte for byte what it was')
  t.is((await client.machine(UEFI_2.mac)).state, 'discovered')
  await unknown.kill()

  const offered = await lan.waitFor('dhcp-offered', UEFI.mac)
  t.like(offered.data, { firmware: 'uefi-x64', transport: 'http', loadedBy: 'firmware' })
  const failed = await lan.waitFor('step-failed', UEFI.mac)
  t.is(failed.data['step'], '40-image')
  t.regex(String(failed.data['log']), /sha256/)
  await lan.waitFor('checked-in', UEFI.mac, (event) => event.data['to'] === 'failed')
  await known.waitFor(/rescue#/, BOOT_TIMEOUT_MS)

  await flipLastByte(kept)
  const machine = await lan.untilRunning(UEFI.mac) // it tries again by itself, without a reboot
  t.is(await lan.onMachine(machine, 'cat /etc/kit-test/role'), 'worker')
  // TFTP knows the MAC of who asked, HTTP does not.
  const everything = client.follow(0, AbortSignal.timeout(1_000))
  for await (const event of everything) t.false(event.kind === 'loader-sent' && event.mac === UEFI.mac)
})

/** Damages a file, or mends it again: its size stays. */
async function flipLastByte(file: string): Promise<void> {
  const handle = await open(file, 'r+')
  try {
    const { size } = await handle.stat()
    const byte = Buffer.alloc(1)
    await handle.read(byte, 0, 1, size - 1)
    await handle.write(Buffer.of((byte[0] ?? 0) ^ 0xff), 0, 1, size - 1)
  } finally {
    await handle.close()
  }
}
