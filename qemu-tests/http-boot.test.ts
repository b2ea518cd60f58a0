// UEFI HTTP boot: the firmware fetches its loader by URL, TFTP is never asked.

import test from 'ava'

import { machineFiles, startTestLan, UEFI } from './test-lan.ts'

test('a machine with UEFI HTTP boot arrives without TFTP', async (t) => {
  const lan = await startTestLan(t, {
    mode: 'server',
    files: {
      'roles/worker/root/etc/kit-test/role': 'worker\n',
      ...machineFiles(UEFI.mac, { role: 'worker\n' }),
    },
  })
  await lan.powerOn(UEFI, { networkBoot: 'http' })
  const offered = await lan.waitFor('dhcp-offered', UEFI.mac)
  t.like(offered.data, { firmware: 'uefi-x64', transport: 'http', loadedBy: 'firmware' })
  const machine = await lan.untilRunning(UEFI.mac)
  t.is(await lan.onMachine(machine, 'cat /etc/kit-test/role'), 'worker')
  await t.throwsAsync(
    lan.network.server.client.waitForEvent((event) => event.kind === 'loader-sent', { timeoutMs: 1 }),
    undefined,
    'no loader went out over TFTP',
  )
})
