// From blank disks to installed machines, UEFI and BIOS: what is refused, what is written, and what starts without a server.

import { join } from 'node:path'

import test from 'ava'
import type { LabMachine } from '#lab/lab-machines.ts'
import type { MachineView } from '#machine/ports.ts'

import { BOOT_TIMEOUT_MS } from './event-watch.ts'
import { INSTALLED_FILES, keepInstalled, machineDisk, switchOff, withDisk } from './installed-lan.ts'
import { fingerprint, makeForeignDisk, partitionLabels } from './machine-disk.ts'
import { machineFiles } from './profile-files.ts'
import { BIOS, DISK_BYTES, startTestLan, type TestLan, UEFI } from './test-lan.ts'

/** docs/disk.md, "Partitions". */
const LABELS = [
  ...['kit-bios', 'kit-esp', 'kit-root-a', 'kit-verity-a', 'kit-root-b', 'kit-verity-b'],
  ...['kit-overlay', 'kit-containers', 'kit-persist'],
]

test('machines are installed on the disk that was chosen and on no other, and start from it without a server', async (t) => {
  const lan = await startTestLan(t, {
    mode: 'server',
    // The UEFI machine has two disks to choose from; the BIOS machine is told to take one that is in use.
    files: { ...INSTALLED_FILES, ...machineFiles(BIOS.mac, { disk: 'serial=FOREIGN\n' }) },
  })
  const { client } = lan.network.server
  const foreign = [UEFI, BIOS].map(({ name }) => join(lan.network.folder, `${name}-foreign.img`))
  for (const file of foreign) await makeForeignDisk(file, DISK_BYTES)
  const before = await Promise.all(foreign.map(fingerprint))
  const [uefi, bios] = await Promise.all([
    lan.powerOn(UEFI, twoDisks(lan, UEFI, foreign[0])),
    lan.powerOn(BIOS, twoDisks(lan, BIOS, foreign[1])),
  ])

  // Refused, on the console and over the API, with what was found.
  for (const [vm, found] of [
    [uefi, [/KIT-uefi/, /FOREIGN/]],
    [bios, [/somebody-elses|ext4/, /wipe/]],
  ] as const) {
    const { mac } = vm.spec
    const refused = await lan.waitFor('step-failed', mac)
    t.is(refused.data['step'], '41-disk')
    await lan.waitFor('disk-refused', mac)
    await vm.waitFor(/rescue#/, BOOT_TIMEOUT_MS)
    const { lines } = await lan.fleet.plan(mac)
    for (const pattern of found) {
      t.regex(lines.join('\n'), pattern)
      t.regex(vm.serial.text, pattern)
    }
    t.is((await client.machine(mac)).state, 'failed')
  }
  t.deepEqual(await Promise.all(foreign.map(fingerprint)), before)

  // Told which: they try again by themselves.
  await lan.writeProfile({
    ...machineFiles(UEFI.mac, { disk: 'serial=KIT-uefi\n' }),
    ...machineFiles(BIOS.mac, { disk: 'transport=nvme size=8G-9G\n' }),
  })
  for (const vm of [uefi, bios]) {
    const { mac } = vm.spec
    await lan.waitFor('installed', mac)
    await lan.waitFor('slot-good', mac)
    const machine = await client.machine(mac)
    t.like(machine, { state: 'running', slot: 'a', isInstalled: true })
    t.like(machine.slots, { a: { state: 'good' }, b: { state: 'empty' } })
    t.is(machine.bundleDigest, machine.wantedBundle)
    t.is((await lan.events('boot-script-sent', mac)).length, 1, 'straight into the slot')
    t.deepEqual(await seenInside(lan, machine), {
      ...{ root: 'overlay', verity: 'verity V', role: 'worker', persist: 'ext4', id: 'kept', etcd: 'ext4' },
      writes: 'tmpfs',
    })
  }

  // From its own disk, while nobody answers.
  const identity = await Promise.all([uefi, bios].map((vm) => identityOf(lan, vm.spec.mac)))
  const later = await lan.fromNow()
  for (const { mac } of [UEFI, BIOS]) {
    await lan.onMachine(await client.machine(mac), 'systemctl reboot --no-block')
  }
  await lan.network.server.stop()
  const started = /kit-\S+ login:|Reached target .*multi-user/
  const said = [uefi, bios].map((vm) => vm.serial.text.length)
  await Promise.all([uefi, bios].map((vm, index) => vm.serial.waitFor(started, BOOT_TIMEOUT_MS, said[index])))
  await lan.network.server.start()
  for (const { mac } of [UEFI, BIOS]) t.like(await later.untilRunning(mac), { slot: 'a', state: 'running' })
  t.deepEqual(await Promise.all([uefi, bios].map((vm) => identityOf(lan, vm.spec.mac))), identity)
  t.is(
    await lan.onMachine(await client.machine(UEFI.mac), "grep -o 'kit.plan=[a-z]*' /proc/cmdline"),
    'kit.plan=disk',
  )
  for (const { mac } of [UEFI, BIOS]) await later.waitFor('checked-in', mac)

  await switchOff(lan, [uefi, bios])
  t.deepEqual(await Promise.all(foreign.map(fingerprint)), before, 'the other disk is what it was')
  for (const machine of [UEFI, BIOS]) {
    t.deepEqual(await partitionLabels(machineDisk(lan, machine).file), LABELS)
  }
  // Without the foreign disk there is one disk to choose from, and no setting is needed.
  await keepInstalled(lan)
})

/** The one it is to be installed on comes first: a BIOS starts no other. */
function twoDisks(lan: TestLan, machine: LabMachine, foreign = '') {
  const { bootOrder, memoryMiB, disks } = withDisk(lan, machine)
  return {
    bootOrder,
    memoryMiB,
    disks: [...disks, { file: foreign, serial: 'FOREIGN', bus: 'sata' as const }],
  }
}

/** What the machine says of itself over ssh. */
async function seenInside(lan: TestLan, machine: MachineView): Promise<Record<string, string>> {
  const type = (path: string) => `$(findmnt -n -o FSTYPE --target ${path})`
  const output = await lan.onMachine(
    machine,
    `touch /written && printf '%s\\n' "root=${type('/')}" \
      "verity=$(dmsetup status kit-root | cut -d ' ' -f 3-4)" "role=$(cat /etc/kit-test/role)" \
      "persist=${type('/persist')}" "etcd=${type('/var/lib/etcd')}" \
      "id=$(cmp -s /etc/machine-id /persist/machine/machine-id && echo kept)" "writes=${type('/run')}"`,
  )
  return Object.fromEntries(output.split('\n').map((line) => line.split('=') as [string, string]))
}

async function identityOf(lan: TestLan, mac: LabMachine['mac']): Promise<string> {
  const machine = await lan.network.server.client.machine(mac)
  return lan.onMachine(machine, 'cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub')
}
