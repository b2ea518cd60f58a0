// A virtual LAN of container machines for one test: its own profile tree, a key to log in with, and everything said when it fails.

import { join } from 'node:path'

import type { Container } from '#lab/container.ts'
import { type LabContainer, parseLabMachines } from '#lab/lab-machines.ts'
import { type LabNetwork, labControlSocket, startLabNetwork } from '#lab/lab-network.ts'
import type { MachineView } from '#machine/ports.ts'

import { type EventWatch, watchEvents } from '../qemu-tests/event-watch.ts'
import { createFleet, type Fleet } from '../qemu-tests/fleet.ts'
import { makeLogin, runOnMachine } from '../qemu-tests/login.ts'
import { type ProfileFiles, writeTree } from '../qemu-tests/profile-files.ts'
import { imageFolder, type Surroundings, scratchFolder } from '../qemu-tests/test-lan.ts'
import { tellWhatHappened } from '../qemu-tests/what-happened.ts'

/** A start takes 10 s on an idle machine. */
const PATIENCE_MS = 4 * 60_000

export interface ContainerLan extends EventWatch {
  readonly network: LabNetwork
  readonly profiles: string
  readonly fleet: Fleet
  powerOn(machine: LabContainer): Promise<Container>
  /** Runs a command on the machine itself, over ssh; its output without the last newline. */
  onMachine(machine: MachineView, command: string): Promise<string>
  writeProfile(files: ProfileFiles): Promise<void>
}

export interface ContainerLanOptions {
  readonly files: ProfileFiles
  readonly environment?: Readonly<Record<string, string>>
  /** A folder; default: this checkout's own image, built when it is not there, or the one that KATESKIT_TEST_IMAGE names. */
  readonly image?: string
  /** For each thing that is waited for. */
  readonly patienceMs?: number
}

export const [FIRST, SECOND] = parseLabMachines('container,container') as [LabContainer, LabContainer]

/** Ends, with everything in it, when the test ends. */
export async function startContainerLan(
  t: Surroundings,
  options: ContainerLanOptions,
): Promise<ContainerLan> {
  const folder = await scratchFolder(t)
  const key = join(folder, 'id')
  const profiles = join(folder, 'profiles')
  await writeTree(profiles, { ...(await makeLogin(key)), ...options.files })
  const network = await startLabNetwork({
    folder: join(folder, 'lab'),
    profilesFolder: profiles,
    mode: 'server',
    environment: {
      KATESKIT_IMAGES_IMPORT: options.image ?? (await testedImage()),
      KATESKIT_LOG_FORMAT: 'json',
      ...options.environment,
    },
  })
  const machines = new Map<string, Container>()
  t.teardown(async () => {
    if (!t.passed) await tellWhatHappened(network, [...machines.values()])
    await network.stop()
  })
  return {
    ...watchEvents(network.server.client, { timeoutMs: options.patienceMs ?? PATIENCE_MS }),
    network,
    profiles,
    fleet: createFleet(labControlSocket(network.folder)),
    async powerOn(machine) {
      const container = await network.powerOnContainer(machine)
      machines.set(machine.name, container)
      return container
    },
    onMachine: async ({ address }, command) =>
      (await runOnMachine({ netns: network.netns, key, address }, command)).trimEnd(),
    writeProfile: (files) => writeTree(profiles, files),
  }
}

/** This checkout's own, built when it is not there; or the one that KATESKIT_TEST_IMAGE names, say of another recipe. */
export async function testedImage(): Promise<string> {
  return process.env['KATESKIT_TEST_IMAGE'] ?? (await imageFolder())
}
