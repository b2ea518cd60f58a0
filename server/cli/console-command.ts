// `kateskit console <name>`: the serial console of a lab machine, in this io.stdin.

import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { resolve } from 'node:path'
import { machineFiles } from '#lab/vm.ts'
import { KitError } from '#lib/errors.ts'
import { pollUntil } from '#lib/retry.ts'

import { type CliIo, untilAborted } from './cli-io.ts'
import { labFolder } from './connect.ts'

/** Ctrl-], as telnet and virsh have it: everything else, Ctrl-C too, goes to the machine. */
const LEAVE = 0x1d

/** An emulated machine that restarts has a new console (server/lab/power.ts); QEMU needs up to 3 s on two busy cores. */
const RESTART_MS = 5_000

/** Resolves when the person leaves, or the machine is switched off. */
export async function runConsole(
  io: CliIo,
  { name, state }: { readonly name: string; readonly state?: string },
): Promise<void> {
  const folder = state === undefined ? labFolder(io.projectFolder) : resolve(state)
  const path = machineFiles(folder, name).serialSocket
  const missing = () =>
    new KitError('unavailable', `Cannot reach the console of ${name}: no such machine runs in ${folder}`, {
      fix: 'name a machine of a running lab, such as uefi; --state names the folder of another lab',
    })
  let socket = await findConsole(path)
  if (socket === undefined) throw missing()
  io.stderr.write(`Console of ${name}; Ctrl-] leaves it. Press Enter.\n`)
  const left = new Promise<'left'>((leave) => {
    io.stdin.on('data', (chunk: Buffer) => {
      if (chunk.indexOf(LEAVE) < 0) socket?.write(chunk)
      else leave('left')
    })
    io.stdin.on('end', () => leave('left'))
  })
  io.stdin.setRawMode?.(true)
  try {
    while (socket !== undefined) {
      const current = socket
      current.on('data', (chunk) => io.stdout.write(chunk.toString('latin1')))
      const closed = new Promise((resolve) => current.once('close', resolve))
      const ended = await Promise.race([left, closed, untilAborted(io.signal)])
      if (ended === 'left' || io.signal.aborted) break
      socket = await pollUntil(() => findConsole(path), {
        ...{ everyMs: 100, timeoutMs: RESTART_MS },
        late: missing,
      }).catch(() => undefined)
    }
  } finally {
    io.stdin.setRawMode?.(false)
    socket?.destroy()
    io.stderr.write('\n')
  }
}

/** Undefined when nothing listens there. */
async function findConsole(path: string): Promise<Socket | undefined> {
  const socket = connect(path)
  try {
    await once(socket, 'connect')
  } catch {
    return undefined
  }
  socket.on('error', () => {}) // 'close' follows
  return socket
}
