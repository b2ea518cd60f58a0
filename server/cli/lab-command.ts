// `kateskit lab`, which is `npm start` without a LAN: set up, switch the machines on, show them, tidy up.

import { mkdir } from 'node:fs/promises'
import { join, relative, resolve } from 'node:path'

import { type Config, loadConfig } from '#config'
import { probeKvm } from '#lab/kvm.ts'
import { checkLab, type Lab, startLab } from '#lab/lab.ts'
import { parseLabMachines } from '#lab/lab-machines.ts'
import type { Accelerator } from '#lab/qemu.ts'
import { KitError } from '#lib/errors.ts'
import { cacheFolder } from '#setup/base-image.ts'
import type { KubernetesBuild } from '#setup/kubernetes.ts'
import type { Prepared } from '#setup/setup.ts'

import { type CliIo, untilAborted } from './cli-io.ts'
import { labFolder } from './connect.ts'
import { createLabDisplay, type LabDisplay } from './lab-display.ts'
import { removeLabKubectl, writeLabKubectl } from './lab-kubectl.ts'
import { importsOf, prepareFor } from './setup-command.ts'

export interface LabCommandOptions {
  readonly machines: string
  readonly memory: string
  readonly port?: string
  readonly state?: string
  readonly accel: 'auto' | Accelerator
  readonly until?: 'ready'
  readonly timeout: string
  readonly json?: boolean
}

/** Resolves when the lab was asked to end, or, with `until`, when every machine is there. Throws when one is not. */
export async function runLab(io: CliIo, options: LabCommandOptions): Promise<void> {
  const machines = parseLabMachines(options.machines)
  const memoryMiB = readNumber('--memory', options.memory, { min: 512, max: 65_536 })
  const timeoutMs = readNumber('--timeout', options.timeout, { min: 1, max: 86_400 }) * 1000
  const config = loadConfig({ env: io.env, cwd: io.projectFolder })
  const { values } = config
  const port =
    options.port === undefined
      ? values['http/port']
      : readNumber('--port', options.port, { min: 0, max: 65_535 })
  const folder = options.state === undefined ? labFolder(io.projectFolder) : resolve(options.state)
  const prepared = await prepareFor(io, 'lab', { config, preflight: () => checkLab({ folder, port }) })
  const kubernetes = kubernetesOf(config, prepared)
  const hasVirtual = machines.some(({ firmware }) => firmware !== 'container')
  const accelerator = hasVirtual ? await chooseAccelerator(io, options.accel) : 'tcg'
  await mkdir(folder, { recursive: true })
  io.signal.throwIfAborted()
  io.stderr.write('Starting the lab: a virtual LAN, the server, and its machines …\n')
  const lab = await startLab({
    ...{ folder, machines, memoryMiB, accelerator, port },
    ...{ mode: 'server', profilesFolder: values['profiles/directory'] },
    environment: serverSettings(config, prepared),
    hasKubernetes: kubernetes !== undefined,
  })
  const display = createLabDisplay(io, lab, { json: options.json === true })
  try {
    await (options.until === 'ready'
      ? awaitReady(io, { lab, display, timeoutMs })
      : attend(io, { lab, display, kubernetes }))
  } finally {
    display.stop()
    io.stderr.write('Stopping the lab …\n')
    await removeLabKubectl(folder)
    await lab.stop()
  }
}

function shortPath(from: string, file: string): string {
  const path = relative(from, file)
  return path.startsWith('..') ? file : path
}

/** What of a person's settings counts in the lab: what machines are made of. */
function serverSettings(config: Config, prepared: Prepared): Readonly<Record<string, string>> {
  const imports = importsOf(config, prepared)
  return {
    KATESKIT_IMAGES_IMPORT: imports['images/import'],
    KATESKIT_REGISTRY_IMPORT: imports['registry/import'],
    KATESKIT_KUBERNETES_SOURCE: config.values['kubernetes/source'],
    KATESKIT_KUBERNETES_CRI: config.values['kubernetes/cri'],
  }
}

/** Undefined too where nobody can say what is in the image. */
function kubernetesOf(config: Config, prepared: Prepared): KubernetesBuild | undefined {
  return importsOf(config, prepared)['images/import'] === prepared.image ? prepared.kubernetes : undefined
}

async function awaitReady(
  io: CliIo,
  { lab, display, timeoutMs }: { lab: Lab; display: LabDisplay; timeoutMs: number },
): Promise<void> {
  const timeout = AbortSignal.timeout(timeoutMs)
  try {
    await Promise.race([lab.watch.allReady(AbortSignal.any([timeout, io.signal])), serverGone(lab)])
    display.result({ ready: true })
  } catch (error) {
    io.signal.throwIfAborted()
    display.result({ ready: false })
    if (!timeout.aborted) throw error
    throw new KitError('unavailable', `Cannot see every machine ready after ${timeoutMs / 1000} s`, {
      fix: `read the machines' consoles: ${join(lab.network.folder, '*.log')}; --timeout gives them longer`,
    })
  }
}

/** A Ctrl-C is the normal end of a lab. */
async function attend(
  io: CliIo,
  { lab, display, kubernetes }: { lab: Lab; display: LabDisplay; kubernetes: KubernetesBuild | undefined },
): Promise<void> {
  const arrived = lab.watch.allReady(io.signal).then(
    async () => {
      const hasCluster = lab.watch.statuses().some(({ view }) => view?.node !== undefined)
      const kubectl =
        hasCluster && kubernetes !== undefined ? await writeLabKubectl(lab.network, kubernetes) : undefined
      display.arrived(kubectl && shortPath(io.projectFolder, kubectl))
    },
    (error: unknown) => {
      if (!io.signal.aborted) throw error
    },
  )
  await Promise.race([arrived.then(() => untilAborted(io.signal)), serverGone(lab)])
}

async function serverGone(lab: Lab): Promise<never> {
  const how = await lab.serverExited
  throw new KitError('unavailable', `Cannot go on: the server ended with ${how}`, {
    fix: `read ${join(lab.network.folder, 'server.log')}`,
  })
}

async function chooseAccelerator(io: CliIo, wanted: LabCommandOptions['accel']): Promise<Accelerator> {
  if (wanted !== 'auto') return wanted
  const verdict = await probeKvm({ cacheFile: join(cacheFolder(io.env), 'kvm-probe.json') })
  if (verdict.works) return 'kvm'
  io.stderr.write(
    `The machines are emulated, which takes a few minutes: KVM does not work here (${verdict.reason})\n`,
  )
  return 'tcg'
}

function readNumber(option: string, text: string, { min, max }: { min: number; max: number }): number {
  const value = Number(text)
  if (/^\d+$/.test(text) && value >= min && value <= max) return value
  throw new KitError('invalid-input', `Cannot use ${option} ${JSON.stringify(text)}`, {
    fix: `give a whole number from ${min} to ${max}`,
  })
}
