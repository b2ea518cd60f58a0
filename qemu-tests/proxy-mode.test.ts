// Proxy mode beside a router that gives the addresses: one machine with a role, one that nobody knows.

import { join } from 'node:path'

import test from 'ava'
import { BOOT_TIMEOUT_MS } from './event-watch.ts'
import { digestOf, LOCAL_DISK_GREETING, makeLocalDisk } from './local-disk.ts'
import { machineFiles } from './profile-files.ts'
import { BIOS, startTestLan, UEFI } from './test-lan.ts'

test('a UEFI machine boots beside a router, an unknown one goes on to its disk and nothing is written to it', async (t) => {
  const lan = await startTestLan(t, {
    mode: 'proxy',
    files: {
      'defaults/boot': 'live\n',
      'roles/worker/root/etc/kit-test/role': 'worker\n',
      ...machineFiles(UEFI.mac, { role: 'worker\n' }),
    },
  })
  const { client } = lan.network.server
  const disk = join(lan.network.folder, 'foreign-disk.img')
  await makeLocalDisk(disk)
  const before = await digestOf(disk)
  const [unknown] = await Promise.all([lan.powerOn(BIOS, { disks: [{ file: disk }] }), lan.powerOn(UEFI)])

  const script = await lan.waitFor('boot-script-sent', BIOS.mac)
  t.is(script.data['plan'], 'local-disk')
  await unknown.waitFor(new RegExp(LOCAL_DISK_GREETING), BOOT_TIMEOUT_MS)
  t.is(await digestOf(disk), before, 'the disk is byte for byte what it was')
  const seen = await client.machine(BIOS.mac)
  t.is(seen.state, 'discovered')
  t.is(seen.role, undefined)
  await unknown.kill()

  const uefi = await lan.untilRunning(UEFI.mac)
  // Its way out is the router's: ours named none.
  const read = "cat /etc/kit-test/role && ip -4 route show default | cut -d ' ' -f 3"
  t.is(await lan.onMachine(uefi, read), 'worker\n10.77.0.254')
})
