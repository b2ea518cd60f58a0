// One container machine while it runs: the image's own root and the initrd's own steps under systemd-nspawn, in a network of its own.

import { mkdir, open, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

import type { Child } from '#lib/child.ts'
import { describeError } from '#lib/errors.ts'
import type { Mac } from '#lib/mac.ts'

import { type Cgroups, findCgroups, makeCgroups } from './container-cgroups.ts'
import { addCable, createNetns, type Netns } from './netns.ts'
import { SerialLog } from './serial-log.ts'

export interface ContainerSpec {
  readonly name: string
  readonly mac: Mac
  readonly uuid: string
}

export interface ContainerPlace {
  /** The lab's network, and the bridge in it that the machine is plugged into. */
  readonly netns: Netns
  readonly bridge: string
  /** Where its log and its folders go, which stand for its disk; what is there is its own, from when it ran before. */
  readonly folder: string
}

export interface Container {
  readonly spec: ContainerSpec
  /** What it has said since it was switched on. */
  readonly serial: SerialLog
  readonly poweredOnMs: number
  /** `containers` and `persist`: the folders in the place of the partitions kit-containers and kit-persist. */
  readonly disk: string
  /** Resolves when it is off and everything it had is gone, with how it ended. A restart is no end. */
  readonly exited: Promise<string>
  /** Waits for a line on its console; throws KitError with the console's last lines after `timeoutMs`. */
  waitFor(pattern: RegExp, timeoutMs: number): Promise<RegExpExecArray>
  /** Presses the reset button: as a power cut, and then it starts again. */
  reset(): Promise<void>
  /** Pulls the plug: SIGKILL for all of it. Resolves when it is off. Its folders stay for the next start. */
  kill(): Promise<void>
}

const LIBRARY = fileURLToPath(new URL('./container', import.meta.url))

/** Of setting cluster/kubeadm-patch: what Kubernetes needs to be told where it may not change the kernel's settings. */
export const CONTAINER_KUBEADM_PATCH = join(LIBRARY, 'kubeadm-patch.json')

/** systemd-nspawn(1), EXIT STATUS: the machine wants to be started again. */
const RESTART = 'exit code 133'

/** Switches the machine on. Throws KitError where containers cannot be had. */
export async function createContainer(place: ContainerPlace, spec: ContainerSpec): Promise<Container> {
  const host = await findCgroups()
  const disk = containerDisk(place.folder, spec)
  const logFile = join(place.folder, `${spec.name}.log`)
  await mkdir(disk, { recursive: true })
  await mkdir(join(place.folder, 'container-images'), { recursive: true })
  await (await open(logFile, 'a')).close()
  const serial = new SerialLog(logFile, (await stat(logFile)).size)
  await serial.follow()
  const poweredOnMs = Date.now()

  let isKilled = false
  let start: Start | undefined
  const run = async (): Promise<string> => {
    for (;;) {
      const cgroups = await makeCgroups(host, spec.name)
      start = await launch(place, { spec, disk, logFile, cgroups })
      if (isKilled) await start.child.kill() // while this one was on its way
      const how = await start.child.exited
      await cgroups.remove()
      await start.netns.stop()
      if (isKilled || !(start.isReset || how === RESTART)) return how
    }
  }
  const exited = run()
    .catch(describeError)
    .finally(() => serial.stop())
  return {
    spec,
    serial,
    poweredOnMs,
    disk,
    exited,
    waitFor: (pattern, timeoutMs) => serial.waitFor(pattern, timeoutMs),
    async reset() {
      if (start === undefined) return
      start.isReset = true
      await start.child.kill()
    },
    async kill() {
      isKilled = true
      await start?.child.kill()
      await exited
    },
  }
}

/** What stands for its disk. */
export function containerDisk(folder: string, { name }: Pick<ContainerSpec, 'name'>): string {
  return join(folder, `${name}.folders`)
}

/** One start of the machine. */
interface Start {
  readonly child: Child
  readonly netns: Netns
  isReset: boolean
}

interface StartOptions {
  readonly spec: ContainerSpec
  readonly disk: string
  readonly logFile: string
  readonly cgroups: Cgroups
}

async function launch(place: ContainerPlace, options: StartOptions): Promise<Start> {
  const { spec, disk, logFile, cgroups } = options
  // A new one each time: routes, addresses and firewall rules end with a start.
  const netns = await createNetns()
  await addCable(place.netns, place.bridge, { netns, interfaceName: 'eth0', mac: spec.mac })
  // Appended to: the initrd opens its console by name and writes beside nspawn.
  const log = await open(logFile, 'a')
  try {
    // However this ends, the kernel ends everything in the namespace of processes, and with that its mounts.
    const child = netns.start(
      'unshare',
      [
        ...[
          '--mount',
          '--propagation',
          'private',
          '--uts',
          '--pid',
          '--fork',
          '--kill-child=KILL',
          '--mount-proc',
        ],
        ...['sh', join(LIBRARY, 'boot.sh')],
      ],
      {
        stdio: ['ignore', log.fd, log.fd],
        env: {
          PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
          NAME: spec.name,
          MAC: spec.mac,
          UUID: spec.uuid,
          DISK: disk,
          SHARED: join(place.folder, 'container-images'),
          LAB_LIB: LIBRARY,
          CGROUPS: cgroups.version,
          CGROUP_FOLDERS: cgroups.folders.join(' '),
        },
      },
    )
    return { child, netns, isReset: false }
  } finally {
    await log.close() // the child has its own copy
  }
}
