// The TPM of one virtual machine: an swtpm process for each start of its QEMU, with the same state.

import { mkdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'

import { type Child, startChild } from '#lib/child.ts'
import { KitError } from '#lib/errors.ts'
import { pollUntil } from '#lib/retry.ts'

import type { TpmSpec } from './qemu.ts'

export interface TpmOptions extends TpmSpec {
  /** Where QEMU finds it. */
  readonly socket: string
}

export interface Tpm {
  /** Resolves when QEMU can connect. Throws KitError `unavailable` with what swtpm complains of. */
  powerOn(): Promise<void>
  /** Its state is on the disk when this resolves. */
  powerOff(): Promise<void>
}

const START_MS = 20_000
const GRACE_MS = 5_000

const MAX_COMPLAINT = 2000

export function createTpm({ stateFolder, socket }: TpmOptions): Tpm {
  const pidFile = join(stateFolder, 'swtpm.pid')
  let swtpm: Child | undefined
  // QEMU tells it to end when it ends in order; after a kill it would wait for the next QEMU. It writes what it remembers
  // with each command that changes it, to a file of another name first, so that it may be stopped at any time.
  const powerOff = async () => swtpm?.stop(GRACE_MS)
  return {
    powerOff,
    async powerOn() {
      await powerOff()
      await mkdir(stateFolder, { recursive: true, mode: 0o700 })
      await rm(pidFile, { force: true })
      await rm(socket, { force: true })
      swtpm = startChild(
        'swtpm',
        [
          ...['socket', '--tpm2', '--tpmstate', `dir=${stateFolder}`],
          ...['--ctrl', `type=unixio,path=${socket}`, '--pid', `file=${pidFile}`],
        ],
        { stdio: ['ignore', 'ignore', 'pipe'] },
      )
      await listens(swtpm, pidFile)
    },
  }
}

/** It writes the file when it listens (swtpm 0.7: main opens the control channel first). Its socket is there a moment too early. */
async function listens(swtpm: Child, pidFile: string): Promise<void> {
  let complaint = ''
  swtpm.process.stderr?.on('data', (chunk: Buffer) => {
    complaint = (complaint + chunk.toString()).slice(-MAX_COMPLAINT)
  })
  const failed = (why: string) => new KitError('unavailable', `Cannot start swtpm: ${why}`)
  await pollUntil(
    async () => {
      if (!swtpm.isRunning()) throw failed(complaint.trim() || (await swtpm.exited))
      return stat(pidFile).then(
        () => true,
        () => undefined,
      )
    },
    { everyMs: 20, timeoutMs: START_MS, late: () => failed('it does not listen') },
  )
}
