// A machine's power: one QEMU from the moment it is switched on until it is off, or, where it is emulated, one for each start.

import type { Child } from '#lib/child.ts'
import { describeError, KitError } from '#lib/errors.ts'
import { pollUntil } from '#lib/retry.ts'

import { findQmp, type Qmp } from './qmp.ts'

/** Generous: on two busy cores QEMU has needed 3 s. */
const QEMU_START_MS = 20_000

const MAX_COMPLAINT = 2000

export interface PowerOptions {
  /** For messages. */
  readonly name: string
  readonly monitorSocket: string
  /** Once for each start; the QEMU of the start before has ended by then. */
  readonly launch: () => Promise<Child>
}

export interface Power {
  /** Resolves when the machine is off, with how QEMU ended. */
  readonly exited: Promise<string>
  reset(): Promise<void>
  kill(): Promise<void>
}

/** One QEMU and its monitor. */
interface Running {
  readonly qemu: Child
  readonly qmp: Qmp
}

/** Throws KitError when QEMU refuses. */
export async function switchOn(options: PowerOptions): Promise<Power> {
  let running = await start(options)
  let isKilled = false
  const follow = async (): Promise<string> => {
    for (;;) {
      const how = await running.qemu.exited
      await running.qmp.closed
      if (isKilled || !isRestart(running.qmp)) return how
      running = await start(options)
      if (isKilled) await running.qemu.kill() // while this one was on its way
    }
  }
  const exited = follow().catch(describeError)
  return {
    exited,
    async reset() {
      await running.qmp.execute('system_reset')
    },
    async kill() {
      isKilled = true
      await running.qemu.kill()
      await exited
    },
  }
}

/** With `-action reboot=shutdown` (qemu.ts) QEMU ends when the machine restarts, and says so: `guest-reset`, `host-qmp-system-reset`. */
function isRestart(qmp: Qmp): boolean {
  const shutdown = qmp.lastEvent('SHUTDOWN')
  return typeof shutdown?.['reason'] === 'string' && shutdown['reason'].endsWith('reset')
}

/** QEMU has taken its arguments once its monitor answers; before that it may end with a complaint. */
async function start({ name, monitorSocket, launch }: PowerOptions): Promise<Running> {
  const qemu = await launch()
  let complaint = ''
  qemu.process.stderr?.on('data', (chunk: Buffer) => {
    complaint = (complaint + chunk.toString()).slice(-MAX_COMPLAINT)
  })
  const refused = (why: string) => new KitError('unavailable', `Cannot switch on ${name}: ${why}`)
  try {
    const qmp = await pollUntil(
      async () => {
        if (!qemu.isRunning()) throw refused(`QEMU: ${complaint.trim() || (await qemu.exited)}`)
        return findQmp(monitorSocket)
      },
      { everyMs: 50, timeoutMs: QEMU_START_MS, late: () => refused('its monitor does not answer') },
    )
    return { qemu, qmp }
  } catch (error) {
    await qemu.kill()
    throw error
  }
}
