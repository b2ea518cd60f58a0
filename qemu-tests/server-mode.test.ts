// A BIOS and a UEFI machine in server mode: other roles, other files; the server is killed under them; files change later.

import test from 'ava'

import { BOOT_TIMEOUT_MS } from './event-watch.ts'
import { machineFiles } from './profile-files.ts'
import { BIOS, startTestLan, UEFI } from './test-lan.ts'

test('machines of two roles boot through a killed server, and take a changed file while they run', async (t) => {
  const lan = await startTestLan(t, {
    mode: 'server',
    files: {
      'defaults/boot': 'live\n',
      'defaults/root/etc/kit-test/everybody': 'from defaults\n',
      'defaults/root/etc/kit-test/role': 'nobody\n',
      'roles/worker/root/etc/kit-test/role': 'worker\n',
      'roles/worker/root.attributes': '/etc/kit-test/private mode=0600\n/etc/os-release delete\n',
      'roles/worker/root/etc/kit-test/private': 'for root only\n',
      'roles/control-plane/root/etc/kit-test/role': 'control-plane\n',
      'roles/control-plane/root/usr/local/bin/hello': '#!/bin/sh\necho hello from the overlay\n',
      ...machineFiles(BIOS.mac, { role: 'worker\n', hostname: 'bios-1\n', ip: '10.77.0.50\n' }),
      ...machineFiles(UEFI.mac, { role: 'control-plane\n' }),
    },
  })
  const { server } = lan.network
  await Promise.all([lan.powerOn(BIOS), lan.powerOn(UEFI)])

  // Firmware that loses its server in the second in which it fetches its loader gives up; from the boot script on everything
  // tries again. So: once when both have their scripts and go for kernels, once while one of them fetches its image.
  await Promise.all([BIOS, UEFI].map(({ mac }) => lan.waitFor('boot-script-sent', mac)))
  await server.kill9()
  await server.start()
  await lan.waitFor('step-started', BIOS.mac, (event) => event.data['step'] === '40-image')
  await server.kill9()
  await server.start()

  const bios = await lan.untilRunning(BIOS.mac)
  const uefi = await lan.untilRunning(UEFI.mac)
  t.is(bios.address, '10.77.0.50' as typeof bios.address, 'the reserved address')
  t.deepEqual([bios.firmware, uefi.firmware], ['bios', 'uefi-x64'])
  t.deepEqual([bios.bundleDigest, uefi.bundleDigest], [bios.wantedBundle, uefi.wantedBundle])
  t.not(bios.bundleDigest, uefi.bundleDigest)

  const read =
    'cd /etc/kit-test && cat everybody role && stat -c %a-%U private && ls /etc/os-release 2>/dev/null; hostname'
  t.is(await lan.onMachine(bios, read), 'from defaults\nworker\n600-root\nbios-1')
  t.is(
    await lan.onMachine(uefi, 'cat /etc/kit-test/role && hello && findmnt -no FSTYPE / && hostname'),
    'control-plane\nhello from the overlay\noverlay\nkit-74-00-01',
  )

  const before = await server.client.lastEventId()
  await lan.writeProfile({ 'roles/worker/root/etc/kit-test/role': 'worker, changed\n' })
  const applied = await server.client.waitForEvent(
    ({ kind, mac }) => kind === 'bundle-applied' && mac === BIOS.mac,
    {
      timeoutMs: BOOT_TIMEOUT_MS,
      afterId: before,
    },
  )
  t.is(applied.data['reboot'], '')
  t.is(await lan.onMachine(bios, 'cat /etc/kit-test/role'), 'worker, changed')
  t.is(await lan.onMachine(uefi, 'cat /etc/kit-test/role'), 'control-plane')
})
