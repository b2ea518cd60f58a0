// A virtual LAN for one test: its own profile tree, a key to log in with, and everything said when the test fails.

import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

import type { ExecutionContext } from 'ava'

import { probeKvm } from '#lab/kvm.ts'
import { type LabMachine, parseLabMachines } from '#lab/lab-machines.ts'
import { type LabNetwork, type LabNetworkOptions, startLabNetwork } from '#lab/lab-network.ts'
import type { MachineSpec } from '#lab/qemu.ts'
import type { Vm } from '#lab/vm.ts'
import { systemClock } from '#lib/clock.ts'
import type { Ipv4 } from '#lib/ipv4.ts'
import { type Mac, macToPath } from '#lib/mac.ts'
import { commandOutput } from '#lib/process.ts'
import type { Event, EventKind } from '#machine/event.ts'
import type { MachineView } from '#machine/ports.ts'
import { ensureBaseImage } from '#setup/base-image.ts'
import { createProgress } from '#setup/progress.ts'

export const PROJECT = fileURLToPath(new URL('..', import.meta.url))

/** One boot takes one to three minutes on two busy, emulated cores; this is for the slowest machine that is not broken. */
export const BOOT_TIMEOUT_MS = 15 * 60_000

const LOG_TAIL_BYTES = 6_000

/** Path inside the profile tree → content. */
export type ProfileFiles = Readonly<Record<string, string>>

export interface TestLan {
  readonly network: LabNetwork
  readonly profiles: string
  powerOn(machine: LabMachine, more?: Partial<MachineSpec>): Promise<Vm>
  /** Resolves when the machine's own check-in says that it runs the bundle it should. */
  untilRunning(mac: Mac): Promise<MachineView>
  waitFor(kind: EventKind, mac: Mac, matches?: (event: Event) => boolean): Promise<Event>
  /** Runs a command on the machine itself, over ssh; its output without the last newline. */
  onMachine(machine: MachineView, command: string): Promise<string>
  writeProfile(files: ProfileFiles): Promise<void>
}

export const [UEFI, BIOS, UEFI_2] = parseLabMachines('uefi,bios,uefi') as [LabMachine, LabMachine, LabMachine]

/** Ends, with everything in it, when the test ends. */
export async function startTestLan(
  t: ExecutionContext,
  options: Pick<LabNetworkOptions, 'mode' | 'environment'> & { readonly files: ProfileFiles },
): Promise<TestLan> {
  const folder = await scratchFolder(t)
  const profiles = join(folder, 'profiles')
  const key = join(folder, 'id')
  await commandOutput('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', key])
  await writeTree(profiles, { ...loginFiles(await readFile(`${key}.pub`, 'utf8')), ...options.files })
  const network = await startLabNetwork({
    folder: join(folder, 'lab'),
    profilesFolder: profiles,
    mode: options.mode,
    environment: {
      KATESKIT_IMAGES_DIRECTORY: await imageFolder(),
      KATESKIT_LOG_FORMAT: 'json',
      ...options.environment,
    },
  })
  const machines: Vm[] = []
  t.teardown(async () => {
    if (!t.passed) await showWhatHappened(t, network, machines)
    await network.stop()
  })
  const { works } = await probeKvm({ cacheFile: join(folder, 'kvm.json') })
  const { client } = network.server
  return {
    network,
    profiles,
    async powerOn({ name, mac, firmware, uuid }, more) {
      const accelerator = works ? 'kvm' : 'tcg'
      const vm = await network.powerOn({ name, mac, firmware, uuid, accelerator, ...more })
      machines.push(vm)
      return vm
    },
    async untilRunning(mac) {
      await client.waitForEvent(
        (event) => event.kind === 'checked-in' && event.mac === mac && event.data['to'] === 'running',
        { timeoutMs: BOOT_TIMEOUT_MS },
      )
      return client.machine(mac)
    },
    waitFor: (kind, mac, matches = () => true) =>
      client.waitForEvent((event) => event.kind === kind && event.mac === mac && matches(event), {
        timeoutMs: BOOT_TIMEOUT_MS,
      }),
    onMachine: async ({ address }, command) => (await ssh(network, key, address, command)).trimEnd(),
    writeProfile: (files) => writeTree(profiles, files),
  }
}

/** Gone, with all that is in it, after the test. Its path is short: sockets lie in it. */
export async function scratchFolder(t: ExecutionContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'kit-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  return folder
}

/** The folder of the image under test: this checkout's own, built when it is not there. */
export function imageFolder(): Promise<string> {
  const progress = createProgress(process.stderr, systemClock)
  const { signal } = new AbortController()
  return ensureBaseImage({ projectFolder: PROJECT, env: process.env, progress, signal })
}

/** `machines/<mac>/role` and the like for one machine. */
export function machineFiles(mac: Mac, files: ProfileFiles): ProfileFiles {
  return Object.fromEntries(
    Object.entries(files).map(([name, content]) => [`machines/${macToPath(mac)}/${name}`, content]),
  )
}

function loginFiles(publicKey: string): ProfileFiles {
  return {
    'defaults/root/root/.ssh/authorized_keys': publicKey,
    'defaults/root.attributes': '/root/.ssh directory mode=0700\n/root/.ssh/authorized_keys mode=0600\n',
  }
}

async function writeTree(root: string, files: ProfileFiles): Promise<void> {
  for (const [name, content] of Object.entries(files)) {
    const file = join(root, name)
    await mkdir(dirname(file), { recursive: true })
    await writeFile(file, content)
    if (content.startsWith('#!')) await chmod(file, 0o755)
  }
}

/** Patient: the first login on an emulated machine makes the host key first. */
function ssh(network: LabNetwork, key: string, address: Ipv4 | undefined, command: string): Promise<string> {
  return network.netns.run('ssh', [
    ...['-i', key, '-o', 'BatchMode=yes', '-o', 'LogLevel=ERROR', '-o', 'ConnectTimeout=120'],
    ...['-o', 'StrictHostKeyChecking=no', '-o', 'UserKnownHostsFile=/dev/null'],
    ...[`root@${address}`, command],
  ])
}

async function showWhatHappened(
  t: ExecutionContext,
  network: LabNetwork,
  machines: readonly Vm[],
): Promise<void> {
  const log = await readFile(join(network.folder, 'server.log'), 'utf8').catch(() => 'no log')
  t.log(`server:\n${log.slice(-LOG_TAIL_BYTES)}`)
  for (const vm of machines) t.log(`console of ${vm.spec.name}:\n${vm.serial.tail(60)}`)
}
