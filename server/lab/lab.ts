// The lab that `npm start` runs: the network, its machines, the way in from this host, and the watch over them.

import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

import { KitError } from '#lib/errors.ts'
import type { Mac } from '#lib/mac.ts'

import { CONTAINER_KUBEADM_PATCH, type Container, containerDisk } from './container.ts'
import { checkPort, createForwarder, type Forwarder } from './forwarder.ts'
import type { AnyLabMachine, LabContainer } from './lab-machines.ts'
import { type LabNetwork, type LabNetworkOptions, labControlSocket, startLabNetwork } from './lab-network.ts'
import type { Accelerator } from './qemu.ts'
import { createServerClient } from './server-client.ts'
import { type Watch, watchMachines } from './watch.ts'

export interface LabOptions extends LabNetworkOptions {
  readonly machines: readonly AnyLabMachine[]
  readonly accelerator: Accelerator
  readonly memoryMiB: number
  /** On 127.0.0.1, for the API; 0 picks a free one. */
  readonly port: number
  /** The image of the machines has it: they are waited for until their nodes are Ready. */
  readonly hasKubernetes?: boolean
}

export interface Lab {
  readonly network: LabNetwork
  readonly watch: Watch
  /** The last lines on the console of a machine: what it says itself when it cannot reach the server; and why it was not paired. */
  consoleOf(mac: Mac): string
  readonly apiUrl: string
  /** An admin token, made for this run. */
  readonly token: string
  /** Resolves, with how, should the server end by itself. */
  readonly serverExited: Promise<string>
  /** In the opposite order of the start; resolves when every process is gone. */
  stop(): Promise<void>
}

/** Sparse: an installed machine has written about 400 MB of it. Above the smallest that is installed on (docs/disk.md). */
const DISK_BYTES = 8 * 1024 ** 3

/** What a failure shows: enough for the last step of an initrd and its complaint. */
const CONSOLE_LINES = 20

/** What would stop a lab from starting, known before anything is set up for it. Throws KitError `conflict`. */
export async function checkLab({ folder, port }: Pick<LabOptions, 'folder' | 'port'>): Promise<void> {
  await refuseSecondLab(folder)
  await checkPort(port)
}

/** When it throws, nothing is left running. */
export async function startLab(options: LabOptions): Promise<Lab> {
  await refuseSecondLab(options.folder)
  const network = await startLabNetwork({ ...options, environment: environmentFor(options) })
  const forwarder = createForwarder({ port: options.port, socketPath: network.extraSocket })
  try {
    await forwarder.start()
    return await switchOn(network, forwarder, options)
  } catch (error) {
    await forwarder.stop()
    await network.stop()
    throw error
  }
}

/** Two labs in one folder would delete each other's state. */
async function refuseSecondLab(folder: string): Promise<void> {
  const client = createServerClient({ kind: 'socket', path: labControlSocket(folder) })
  if (!(await client.isHealthy())) return
  throw new KitError('conflict', `Cannot start a lab in ${folder}: another one runs there`, {
    fix: 'stop it with Ctrl-C where it was started, or name another folder: npm start -- --state <folder>',
  })
}

async function switchOn(network: LabNetwork, forwarder: Forwarder, options: LabOptions): Promise<Lab> {
  const { client } = network.server
  const token = await client.makeToken('lab')
  const afterId = await client.lastEventId()
  const switchedOn = new Map<Mac, SwitchedOn>()
  for (const machine of options.machines) {
    switchedOn.set(machine.mac, await powerOn(network, machine, options))
  }
  const poweredOnMs = new Map([...switchedOn].map(([mac, machine]) => [mac, machine.poweredOnMs]))
  const { machines, hasKubernetes = false } = options
  const watch = watchMachines({ client, machines, poweredOnMs, afterId, hasKubernetes })
  watch.onChange(() => void resetContainers(watch, switchedOn))
  return {
    network,
    watch,
    consoleOf(mac) {
      const said = switchedOn.get(mac)?.serial.tail(CONSOLE_LINES) ?? ''
      const problems = network.pairingProblems().filter((problem) => problem.startsWith(mac))
      return [said, ...problems.map((problem) => `Cannot pair ${problem}`)].join('\n')
    },
    apiUrl: `http://127.0.0.1:${forwarder.port()}`,
    token,
    serverExited: network.server.exited(),
    async stop() {
      await watch.stop()
      await forwarder.stop()
      await network.stop()
      for (const machine of options.machines) await rm(diskFile(options.folder, machine), { force: true })
      for (const machine of options.machines) {
        await rm(containerDisk(options.folder, machine), { recursive: true, force: true })
      }
    },
  }
}

/** Emulated, everything takes ten times as long: nobody is taken for dead because of it. */
const EMULATED_KUBEADM_PATCH = fileURLToPath(new URL('./emulated-kubeadm-patch.json', import.meta.url))

/** What machines need kubeadm to be told, unless a person says otherwise. */
function environmentFor({
  machines,
  accelerator,
  environment,
}: LabOptions): Readonly<Record<string, string>> {
  const hasContainers = machines.some(({ firmware }) => firmware === 'container')
  const patch = hasContainers ? CONTAINER_KUBEADM_PATCH : EMULATED_KUBEADM_PATCH
  if (!hasContainers && accelerator !== 'tcg') return { ...environment }
  return { KATESKIT_CLUSTER_KUBEADM_PATCH: patch, ...environment }
}

/** Of a machine; `reset` is there for containers. */
type SwitchedOn = Pick<Container, 'serial' | 'poweredOnMs'> & {
  readonly reset?: Container['reset']
  /** The last event that it was reset for. */
  resetForId?: number
}

/** For a powerwash, which takes a netboot: a machine without slots does not restart by itself, and its button is here. */
async function resetContainers(watch: Watch, switchedOn: ReadonlyMap<Mac, SwitchedOn>): Promise<void> {
  for (const { machine, progress } of watch.statuses()) {
    const own = switchedOn.get(machine.mac)
    const { kind, id } = progress.lastEvent ?? {}
    const isAsked = kind === 'powerwash-requested' && machine.firmware === 'container'
    if (!isAsked || own === undefined || own.resetForId === id) continue
    own.resetForId = id ?? 0
    await own.reset?.()
  }
}

function powerOn(network: LabNetwork, machine: AnyLabMachine, options: LabOptions): Promise<SwitchedOn> {
  if (machine.firmware === 'container') return powerOnContainer(network, machine)
  const { accelerator, memoryMiB, folder } = options
  const disks = [{ file: diskFile(folder, machine), sizeBytes: DISK_BYTES }]
  return network.powerOn({ ...machine, accelerator, memoryMiB, disks })
}

async function powerOnContainer(network: LabNetwork, machine: LabContainer): Promise<SwitchedOn> {
  const { serial, poweredOnMs, reset } = await network.powerOnContainer(machine)
  return { serial, poweredOnMs, reset }
}

function diskFile(folder: string, { name }: AnyLabMachine): string {
  return join(folder, `${name}.disk`)
}
