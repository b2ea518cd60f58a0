// A network namespace for one test file, without a name: it is gone when the file's thread ends, however it ends.

import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { promisify } from 'node:util'

import koffi from 'koffi'

const CLONE_NEWNET = 0x40000000 // <linux/sched.h>

const run = promisify(execFile)

/**
 * Moves the calling thread, and every process it starts from now on, into a new network namespace in which only
 * `lo` exists and is up. Ava runs each test file on a thread of its own, so no other file notices.
 * Sockets opened before stay where they were. Needs root.
 */
export async function enterOwnNetwork(): Promise<void> {
  const unshare = koffi.load(null).func('int unshare(int flags)')
  if (unshare(CLONE_NEWNET) !== 0) throw new Error('Cannot make a network namespace: run the tests as root')
  await ip('link set dev lo up')
}

/** Runs one `ip` command, its words separated by blanks, and resolves with what it printed. */
export async function ip(command: string): Promise<string> {
  return (await run('ip', command.split(' '))).stdout
}

/** Another host: a second namespace, joined to this one by one cable. */
export interface Neighbour {
  /** For `/proc/<pid>/ns/net`. */
  readonly pid: number
  /** Starts a program on that host; it is killed with this thread at the latest. */
  start(command: string, ...args: readonly string[]): ChildProcess
  /** Runs a program on that host to its end and resolves with what it printed. */
  run(command: string, ...args: readonly string[]): Promise<string>
  stop(): void
}

/**
 * Adds a host on a cable of its own. `near` names this side's interface and address (`{name: 'lan0', address:
 * '10.9.0.1/24'}`), `farAddress` the other side's, on its `eth0`; without one it has none.
 */
export async function addNeighbour(
  near: { readonly name: string; readonly address: string },
  farAddress?: string,
): Promise<Neighbour> {
  const holder = spawn('setpriv', [
    ...['--pdeathsig', 'KILL', 'unshare', '--net'],
    ...['sh', '-c', 'ip link set dev lo up && echo ready && exec sleep infinity'],
  ])
  await once(holder.stdout, 'data')
  const pid = holder.pid ?? 0
  const enter = [`--net=/proc/${pid}/ns/net`, '--']
  await ip(`link add name ${near.name} type veth peer name eth0 netns ${pid}`)
  await ip(`address add ${near.address} dev ${near.name}`)
  await ip(`link set dev ${near.name} up`)
  if (farAddress) await run('nsenter', [...enter, 'ip', 'address', 'add', farAddress, 'dev', 'eth0'])
  await run('nsenter', [...enter, 'ip', 'link', 'set', 'dev', 'eth0', 'up'])
  return {
    pid,
    start: (...command) => spawn('setpriv', ['--pdeathsig', 'KILL', 'nsenter', ...enter, ...command]),
    run: async (...command) => (await run('nsenter', [...enter, ...command])).stdout,
    stop: () => void holder.kill('SIGKILL'),
  }
}
