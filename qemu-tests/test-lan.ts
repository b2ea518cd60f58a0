// A virtual LAN for one test: its own profile tree, a key to log in with, and everything said when the test fails.

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

import { probeKvm } from '#lab/kvm.ts'
import { type LabMachine, parseLabMachines } from '#lab/lab-machines.ts'
import {
  type LabNetwork,
  type LabNetworkOptions,
  labControlSocket,
  startLabNetwork,
} from '#lab/lab-network.ts'
import type { PairingRule } from '#lab/pairing.ts'
import type { MachineSpec } from '#lab/qemu.ts'
import type { Vm } from '#lab/vm.ts'
import { systemClock } from '#lib/clock.ts'
import type { MachineView } from '#machine/ports.ts'
import { ensureBaseImage } from '#setup/base-image.ts'
import type { KubernetesChoice } from '#setup/kubernetes.ts'
import { createProgress } from '#setup/progress.ts'
import type { RecipeSurroundings } from '#setup/recipe.ts'

import { BOOT_TIMEOUT_MS, type EventWatch, watchEvents } from './event-watch.ts'
import { createFleet, type Fleet } from './fleet.ts'
import { makeLogin, runOnMachine } from './login.ts'
import { copySparse } from './machine-disk.ts'
import { type ProfileFiles, writeTree } from './profile-files.ts'
import { tellWhatHappened } from './what-happened.ts'

export const PROJECT = fileURLToPath(new URL('..', import.meta.url))

/** What a machine's disk can be: the smallest is 8 GB (docs/disk.md). */
export const DISK_BYTES = 8 * 1024 ** 3

export interface TestLan extends EventWatch {
  readonly network: LabNetwork
  readonly profiles: string
  readonly fleet: Fleet
  /** `pairing`: default as for the whole LAN. */
  powerOn(machine: LabMachine, more?: PowerOnOptions): Promise<Vm>
  /** Runs a command on the machine itself, over ssh; its output without the last newline. */
  onMachine(machine: MachineView, command: string): Promise<string>
  writeProfile(files: ProfileFiles): Promise<void>
}

export interface PowerOnOptions extends Partial<MachineSpec> {
  readonly pairing?: PairingRule
}

/** Machines that the server knows no key of are paired by their consoles, unless `pairing` says otherwise. */
export interface TestLanOptions extends Pick<LabNetworkOptions, 'mode' | 'environment' | 'pairing'> {
  readonly files: ProfileFiles
  /** For one event; default: a boot's. */
  readonly patienceMs?: number
  /** A folder that `keepLan` made: a LAN of before goes on, with its disks and all that its server knew. */
  readonly from?: string
}

export const [UEFI, BIOS, UEFI_2] = parseLabMachines('uefi,bios,uefi') as [LabMachine, LabMachine, LabMachine]

/** What of a test or a benchmark this needs: its end, whether it went well, and a place to say things. */
export interface Surroundings {
  teardown(end: () => unknown): void
  readonly passed: boolean
  log(...words: readonly unknown[]): void
}

/** Ends, with everything in it, when the test ends. */
export async function startTestLan(t: Surroundings, options: TestLanOptions): Promise<TestLan> {
  const folder = await scratchFolder(t)
  const key = join(folder, 'id')
  const profiles = join(folder, 'profiles')
  if (options.from !== undefined) await copySparse(`${options.from}/.`, folder)
  const login = options.from === undefined ? await makeLogin(key) : {}
  await writeTree(profiles, { ...login, ...options.files })
  const network = await startLabNetwork({
    folder: join(folder, 'lab'),
    profilesFolder: profiles,
    mode: options.mode,
    keepState: options.from !== undefined,
    ...(options.pairing === undefined ? {} : { pairing: options.pairing }),
    environment: {
      KATESKIT_IMAGES_IMPORT: await imageFolder(),
      KATESKIT_LOG_FORMAT: 'json',
      ...options.environment,
    },
  })
  const machines = new Map<string, Vm>()
  t.teardown(async () => {
    if (!t.passed) await tellWhatHappened(network, [...machines.values()])
    await network.stop()
  })
  const { works } = await probeKvm({ cacheFile: join(folder, 'kvm.json') })
  return {
    ...watchEvents(network.server.client, { timeoutMs: options.patienceMs ?? BOOT_TIMEOUT_MS }),
    network,
    profiles,
    fleet: createFleet(labControlSocket(network.folder)),
    async powerOn({ name, mac, firmware, uuid }, { pairing, ...more } = {}) {
      const accelerator = works ? 'kvm' : 'tcg'
      const vm = await network.powerOn({ name, mac, firmware, uuid, accelerator, ...more }, pairing)
      machines.set(name, vm)
      return vm
    },
    onMachine: async ({ address }, command) =>
      (await runOnMachine({ netns: network.netns, key, address }, command)).trimEnd(),
    writeProfile: (files) => writeTree(profiles, files),
  }
}

/** For `from` of another one. The LAN must have been stopped. */
export async function keepLan(lan: TestLan, folder: string): Promise<void> {
  await copySparse(`${lan.network.folder}/../.`, folder)
}

/** Gone, with all that is in it, after the test. Its path is short: sockets lie in it. */
export async function scratchFolder(t: Surroundings): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'kit-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  return folder
}

/** The folder of the image under test: this checkout's own, built when it is not there. */
export function imageFolder(kubernetes: KubernetesChoice = { source: 'none' }): Promise<string> {
  return ensureBaseImage({ ...recipeSurroundings(), kubernetes })
}

export function recipeSurroundings(): RecipeSurroundings {
  const progress = createProgress(process.stderr, systemClock)
  return { projectFolder: PROJECT, env: process.env, progress, signal: new AbortController().signal }
}
