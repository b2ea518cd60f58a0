// A powerwash by one command, on UEFI and on BIOS: every row of "Kept and lost" in docs/disk.md.

import test from 'ava'

import type { Mac } from '#lib/mac.ts'

import { startInstalledLan, withDisk } from './installed-lan.ts'
import { BIOS, type TestLan, UEFI } from './test-lan.ts'

/** Where a mark is left, by what it stands for. */
const MARKS = {
  'the running root': '/var/tmp/kit-mark',
  'kit-containers': '/var/lib/containerd/kit-mark',
  etcd: '/var/lib/etcd/kit-mark',
  volumes: '/persist/volumes/kit-mark',
  'a named path': '/srv/kept/kit-mark',
} as const

const KEPT = ['etcd', 'volumes', 'a named path']
const REBOOT_KEEPS = ['kit-containers', ...KEPT]

test('powerwash makes a running machine new once, and keeps what docs/disk.md says', async (t) => {
  const lan = await startInstalledLan(t)
  const { client } = lan.network.server
  let step = await lan.fromNow()
  const vms = await Promise.all([UEFI, BIOS].map((machine) => lan.powerOn(machine, withDisk(lan, machine))))
  for (const { mac } of [UEFI, BIOS]) await step.untilRunning(mac)

  // Reboot.
  const identity = new Map<Mac, string>()
  for (const { mac } of [UEFI, BIOS]) {
    await leaveMarks(lan, mac)
    identity.set(mac, await identityOf(lan, mac))
  }
  step = await lan.fromNow()
  for (const { mac } of [UEFI, BIOS]) await restart(lan, mac)
  for (const { mac } of [UEFI, BIOS]) {
    await step.untilRunning(mac)
    t.deepEqual(await marksOn(lan, mac), REBOOT_KEEPS)
    t.is(await identityOf(lan, mac), identity.get(mac) ?? '')
  }

  // Powerwash: one command each; the other overlay bundle of the files comes with it.
  const before = await Promise.all([UEFI, BIOS].map(({ mac }) => client.machine(mac)))
  step = await lan.fromNow()
  for (const { mac } of [UEFI, BIOS]) await lan.fleet.powerwash(mac)
  for (const [index, vm] of vms.entries()) {
    const { mac } = vm.spec
    await step.waitFor('powerwash-begun', mac)
    await step.waitFor('step-done', mac, ({ data }) => data['step'] === '43-slot')
    await step.waitFor('slot-good', mac)
    const view = await client.machine(mac)
    t.like(view, {
      state: 'running',
      slot: 'a',
      slots: { b: { state: 'empty' } },
      role: 'worker',
      channel: before[index]?.channel,
    })
    t.is(view.powerwash, undefined, 'the request is used up')
    t.is(view.bundleDigest, view.wantedBundle)
    t.deepEqual(await marksOn(lan, mac), KEPT)
    t.is(await identityOf(lan, mac), identity.get(mac) ?? '')
    t.true((await lan.events('machine-discovered', mac)).length === 1, 'its history goes on')
  }

  // With persistence; and an ordinary restart of the other one, which must not be a powerwash again.
  step = await lan.fromNow()
  await lan.fleet.powerwash(BIOS.mac, { persistence: true })
  await restart(lan, UEFI.mac)
  await step.waitFor('slot-good', BIOS.mac)
  t.deepEqual(await marksOn(lan, BIOS.mac), [])
  t.not(await identityOf(lan, BIOS.mac), identity.get(BIOS.mac))
  await step.untilRunning(UEFI.mac)
  t.deepEqual(await marksOn(lan, UEFI.mac), KEPT)
  t.is((await step.events('powerwash-begun', UEFI.mac)).length, 0)
  t.is((await step.events('powerwash-begun', BIOS.mac)).length, 1)
})

async function restart(lan: TestLan, mac: Mac): Promise<void> {
  await lan.onMachine(await lan.network.server.client.machine(mac), 'systemctl reboot --no-block')
}

async function leaveMarks(lan: TestLan, mac: Mac): Promise<void> {
  const files = Object.values(MARKS).join(' ')
  const machine = await lan.network.server.client.machine(mac)
  await lan.onMachine(machine, `for f in ${files}; do mkdir -p "\${f%/*}" && touch "$f"; done; sync`)
}

/** Which of the marks are there. */
async function marksOn(lan: TestLan, mac: Mac): Promise<readonly string[]> {
  const machine = await lan.network.server.client.machine(mac)
  const found = await lan.onMachine(machine, `ls -d ${Object.values(MARKS).join(' ')} 2>/dev/null || true`)
  const there = new Set(found.split('\n'))
  return Object.entries(MARKS).flatMap(([name, file]) => (there.has(file) ? [name] : []))
}

async function identityOf(lan: TestLan, mac: Mac): Promise<string> {
  const machine = await lan.network.server.client.machine(mac)
  return lan.onMachine(machine, 'cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub')
}
