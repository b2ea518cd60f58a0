// `kateskit console <name>`: the serial console of a lab machine, in this io.stdin.

import { once } from 'node:events'
import { connect } from 'node:net'
import { resolve } from 'node:path'
import { machineFiles } from '#lab/vm.ts'
import { KitError } from '#lib/errors.ts'

import { type CliIo, untilAborted } from './cli-io.ts'
import { labFolder } from './connect.ts'

/** Ctrl-], as telnet and virsh have it: everything else, Ctrl-C too, goes to the machine. */
const LEAVE = 0x1d

/** Resolves when the person leaves, or the machine is switched off. */
export async function runConsole(
  io: CliIo,
  { name, state }: { readonly name: string; readonly state?: string },
): Promise<void> {
  const folder = state === undefined ? labFolder(io.projectFolder) : resolve(state)
  const socket = connect(machineFiles(folder, name).serialSocket)
  await once(socket, 'connect').catch((cause: unknown) => {
    throw new KitError(
      'unavailable',
      `Cannot reach the console of ${name}: no such machine runs in ${folder}`,
      {
        fix: 'name a machine of a running lab, such as uefi; --state names the folder of another lab',
        cause,
      },
    )
  })
  io.stderr.write(`Console of ${name}; Ctrl-] leaves it. Press Enter.\n`)
  const left = new Promise<void>((leave) => {
    io.stdin.on('data', (chunk: Buffer) => {
      const end = chunk.indexOf(LEAVE)
      if (end < 0) socket.write(chunk)
      else leave()
    })
    io.stdin.on('end', leave)
  })
  socket.on('data', (chunk) => io.stdout.write(chunk.toString('latin1')))
  socket.on('error', () => {}) // 'close' follows
  io.stdin.setRawMode?.(true)
  try {
    await Promise.race([left, once(socket, 'close'), untilAborted(io.signal)])
  } finally {
    io.stdin.setRawMode?.(false)
    socket.destroy()
    io.stderr.write('\n')
  }
}
