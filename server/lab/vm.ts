// One virtual machine while it runs: power, serial console, disk.

import { once } from 'node:events'
import { constants, copyFile, mkdir, open, rm, stat } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { KitError, systemErrorCode } from '#lib/errors.ts'
import type { Netns } from './netns.ts'
import { switchOn } from './power.ts'
import { type DiskSpec, type MachineFiles, type MachineSpec, OVMF_VARIABLES, qemuArguments } from './qemu.ts'
import { SerialLog } from './serial-log.ts'
import { createTpm } from './tpm.ts'

/** sockaddr_un holds 108 bytes with the zero at the end (unix(7)). */
const SOCKET_PATH_LIMIT = 107

export interface VmPlace {
  readonly netns: Netns
  /** The end of its network cable (`addTap`). */
  readonly tap: string
  /**
   * Where its log, sockets and firmware variables go; made when missing. A log and variables that are there are its own,
   * from when it ran before: the log is written on, the variables are used.
   */
  readonly folder: string
}

export interface Vm {
  readonly spec: MachineSpec
  readonly files: MachineFiles
  /** What it has said since it was switched on. */
  readonly serial: SerialLog
  readonly poweredOnMs: number
  /** The end of its network cable in the lab's namespace: what it counts is what went over the wire. */
  readonly tap: string
  /** Resolves when it is off, with how QEMU ended. A restart is no end. */
  readonly exited: Promise<string>
  /** Waits for a line on the serial console; throws KitError with the console's last lines after `timeoutMs`. */
  waitFor(pattern: RegExp, timeoutMs: number): Promise<RegExpExecArray>
  /** Types on the serial console. Nobody else may be attached meanwhile. */
  type(text: string): Promise<void>
  /** Presses the reset button. */
  reset(): Promise<void>
  /** Pulls the plug: SIGKILL. Resolves when it is off. Its disks and firmware variables stay for the next start. */
  kill(): Promise<void>
}

/** Switches the machine on. Throws KitError when QEMU refuses. */
export async function createVm(place: VmPlace, spec: MachineSpec): Promise<Vm> {
  const files = machineFiles(place.folder, spec.name)
  await prepareFiles(place.folder, files, spec)
  const said = (await stat(files.serialLog)).size
  const args = qemuArguments(spec, files, place.tap)
  const poweredOnMs = Date.now()
  const serial = new SerialLog(files.serialLog, said)
  await serial.follow()
  const tpm = spec.tpm && createTpm({ ...spec.tpm, socket: files.tpmSocket })
  const tidy = async () => {
    await serial.stop()
    await tpm?.powerOff()
  }
  const power = await switchOn({
    name: spec.name,
    monitorSocket: files.monitorSocket,
    async launch() {
      await tpm?.powerOn()
      return place.netns.start('qemu-system-x86_64', args, { stdio: ['ignore', 'ignore', 'pipe'] })
    },
  }).catch(async (error: unknown) => {
    await tidy()
    throw error
  })
  // However it ends: a machine may also switch itself off.
  const exited = power.exited.then(async (how) => {
    await tidy()
    return how
  })
  return {
    spec,
    files,
    serial,
    poweredOnMs,
    tap: place.tap,
    exited,
    waitFor: (pattern, timeoutMs) => serial.waitFor(pattern, timeoutMs),
    type: (text) => typeOn(files.serialSocket, text),
    reset: () => power.reset(),
    async kill() {
      await power.kill()
      await exited
    },
  }
}

export function machineFiles(folder: string, name: string): MachineFiles {
  return {
    serialLog: join(folder, `${name}.log`),
    serialSocket: join(folder, `${name}.console`),
    monitorSocket: join(folder, `${name}.qmp`),
    tpmSocket: join(folder, `${name}.tpm`),
    firmwareVariables: join(folder, `${name}.vars.fd`),
  }
}

async function prepareFiles(folder: string, files: MachineFiles, spec: MachineSpec): Promise<void> {
  for (const socket of [files.serialSocket, files.monitorSocket, files.tpmSocket]) {
    if (Buffer.byteLength(socket) > SOCKET_PATH_LIMIT) {
      throw new KitError('invalid-input', `Cannot make the socket ${socket}: its path is too long`, {
        fix: 'use a checkout nearer to the root, or name a shorter folder with --state',
      })
    }
  }
  await mkdir(folder, { recursive: true })
  for (const socket of [files.serialSocket, files.monitorSocket]) await rm(socket, { force: true })
  await (await open(files.serialLog, 'a')).close()
  for (const disk of spec.disks ?? []) await makeDisk(disk)
  if (spec.firmware === 'uefi') await keepOrCopy(OVMF_VARIABLES, files.firmwareVariables)
}

/** Where a size is given and no such file is there. */
export async function makeDisk({ file, sizeBytes }: DiskSpec): Promise<void> {
  if (sizeBytes === undefined) return // it is there, or QEMU says that it is not
  const handle = await open(file, 'a')
  try {
    if ((await handle.stat()).size === 0) await handle.truncate(sizeBytes)
  } finally {
    await handle.close()
  }
}

async function keepOrCopy(from: string, to: string): Promise<void> {
  await copyFile(from, to, constants.COPYFILE_EXCL).catch((error: unknown) => {
    if (systemErrorCode(error) !== 'EEXIST') throw error
  })
}

async function typeOn(serialSocket: string, text: string): Promise<void> {
  const socket = connect(serialSocket)
  await once(socket, 'connect')
  socket.resume() // QEMU stops sending to everybody, the log too, while a client does not read
  socket.write(text)
  await new Promise<void>((resolve) => socket.end(resolve))
}
