// Two machines that are installed, UEFI and BIOS: made once for this checkout, then copied for every test that needs them.

import { createHash } from 'node:crypto'
import { mkdtemp, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'

import type { LabMachine } from '#lab/lab-machines.ts'
import type { DiskSpec, MachineSpec } from '#lab/qemu.ts'
import type { Vm } from '#lab/vm.ts'
import { commandOutput } from '#lib/process.ts'
import { cacheFolder } from '#setup/base-image.ts'

import { FAILURE_FILE } from './image-variants.ts'
import { machineFiles, type ProfileFiles } from './profile-files.ts'
import {
  BIOS,
  DISK_BYTES,
  imageFolder,
  keepLan,
  PROJECT,
  type Surroundings,
  startTestLan,
  type TestLan,
  type TestLanOptions,
  UEFI,
} from './test-lan.ts'

/** Below the default of two gigabytes: nothing is in memory but what runs. */
const MEMORY_MIB = 1024

/** Where it is installed. Another bus for each, so that both are tried. */
export function machineDisk(lan: TestLan, machine: LabMachine): DiskSpec {
  return {
    file: join(lan.network.folder, `${machine.name}.disk`),
    sizeBytes: DISK_BYTES,
    serial: `KIT-${machine.name}`,
    bus: machine.firmware === 'uefi' ? 'virtio' : 'nvme',
  }
}

/** A machine with its disk, from which it starts when there is something to start. */
export function withDisk(lan: TestLan, machine: LabMachine) {
  return {
    disks: [machineDisk(lan, machine)],
    bootOrder: 'disk-first',
    memoryMiB: MEMORY_MIB,
  } as const satisfies Partial<MachineSpec>
}

/** Enough for a good boot on two emulated cores that others use, too; a bad one is waited for so long. */
const AGENT_SETTINGS = 'TRIAL_SECONDS=420\nGRACE_SECONDS=10\n'

export const INSTALLED_FILES: ProfileFiles = {
  'defaults/root/etc/kit/agent.conf': AGENT_SETTINGS,
  'defaults/root/etc/kit/persist': '/srv/kept\n',
  'roles/worker/root/etc/kit-test/role': 'worker\n',
  // How the bad one of the images fails on them (image-variants.ts).
  ...machineFiles(UEFI.mac, { role: 'worker\n', [`root${FAILURE_FILE}`]: 'panic\n' }),
  ...machineFiles(BIOS.mac, { role: 'worker\n', [`root${FAILURE_FILE}`]: 'mute\n' }),
}

/** The machines are off. */
export async function startInstalledLan(
  t: Surroundings,
  options: Partial<TestLanOptions> = {},
): Promise<TestLan> {
  const from = await snapshotFolder()
  if (!(await exists(from))) await makeSnapshot(t, from)
  return startTestLan(t, { mode: 'server', files: {}, ...options, from })
}

/** Keeps a LAN whose two machines are installed and off; another one of this checkout is replaced. Stops it. */
export async function keepInstalled(lan: TestLan): Promise<void> {
  await lan.network.stop()
  const folder = await snapshotFolder()
  const parent = dirname(folder)
  await rm(parent, { recursive: true, force: true }) // older ones too: each has half a gigabyte
  await commandOutput('mkdir', ['-p', parent])
  const next = await mkdtemp(join(parent, 'new-'))
  await keepLan(lan, next)
  await rename(next, folder)
}

async function makeSnapshot(t: Surroundings, folder: string): Promise<void> {
  t.log(`installs the machines, for ${folder} is not there`)
  const lan = await startTestLan(t, { mode: 'server', files: INSTALLED_FILES })
  const vms = await Promise.all([UEFI, BIOS].map((machine) => lan.powerOn(machine, withDisk(lan, machine))))
  await Promise.all([UEFI, BIOS].map(({ mac }) => lan.waitFor('slot-good', mac)))
  await switchOff(lan, vms)
  await keepInstalled(lan)
}

/** In order, as by a person: everything is written. */
export async function switchOff(lan: TestLan, vms: readonly Vm[]): Promise<void> {
  for (const vm of vms) {
    const machine = await lan.network.server.client.machine(vm.spec.mac)
    await lan.onMachine(machine, 'systemctl poweroff --no-block')
  }
  await Promise.all(vms.map(({ exited }) => exited))
}

/** By everything that decides what an installed machine and its server have on their disks. */
async function snapshotFolder(): Promise<string> {
  const hash = createHash('sha256')
    .update(await imageFolder())
    .update(JSON.stringify(INSTALLED_FILES))
  const names = (await readdir(join(PROJECT, 'server'), { recursive: true })).filter((name) =>
    name.endsWith('.ts'),
  )
  for (const name of names.sort()) {
    hash.update(name).update(await readFile(join(PROJECT, 'server', name)))
  }
  return join(cacheFolder(process.env), 'installed-lan', hash.digest('hex').slice(0, 16))
}

async function exists(folder: string): Promise<boolean> {
  return stat(folder).then(
    () => true,
    () => false,
  )
}
