// A network namespace without a name: it exists for as long as a process is in it, and needs no mount.

import { once } from 'node:events'
import { type Child, type ChildOptions, startChild } from '#lib/child.ts'
import { KitError } from '#lib/errors.ts'
import type { Mac } from '#lib/mac.ts'
import { commandOutput } from '#lib/process.ts'

export interface Netns {
  /** The process that holds it open; `/proc/<pid>/ns/net` is the namespace. */
  readonly pid: number
  /** Starts a program inside that ends with this process. The caller stops it. */
  start(command: string, args: readonly string[], options?: ChildOptions): Child
  /** Runs a program inside to its end; its output. Throws KitError `unavailable` when it fails. */
  run(command: string, args: readonly string[]): Promise<string>
  /** The command line that runs `command` inside, for a person or a program that starts it itself. */
  commandLine(command: string, args: readonly string[]): readonly [string, ...string[]]
  /** Lets go of it; it is gone when the last program inside has ended. */
  stop(): Promise<void>
}

/** Says so once loopback is up, then waits for ever; `cat` also ends when its input closes, should a signal not reach it. */
const HOLDER_SCRIPT = 'ip link set lo up && echo ready && exec cat'

/** With loopback up and nothing else. Throws KitError `forbidden` without the right to make one. */
export async function createNetns(): Promise<Netns> {
  const holder = startChild('unshare', ['--net', 'sh', '-c', HOLDER_SCRIPT], {
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  await holderReady(holder)
  const commandLine: Netns['commandLine'] = (command, args) => [
    'nsenter',
    `--net=/proc/${holder.pid}/ns/net`,
    command,
    ...args,
  ]
  return {
    pid: holder.pid,
    commandLine,
    start(command, args, options) {
      const [program, ...rest] = commandLine(command, args)
      return startChild(program, rest, options)
    },
    run(command, args) {
      const [program, ...rest] = commandLine(command, args)
      return commandOutput(program, rest)
    },
    stop: () => holder.kill(),
  }
}

async function holderReady(holder: Child): Promise<void> {
  const { stdout, stderr } = holder.process
  if (stdout === null || stderr === null) throw new Error('The holder was started without pipes')
  let complaint = ''
  stderr.on('data', (chunk: Buffer) => {
    complaint += chunk.toString()
  })
  const first = await Promise.race([once(stdout, 'data').then(() => 'ready' as const), holder.exited])
  if (first === 'ready') return
  throw new KitError('forbidden', `Cannot make a network namespace: ${complaint.trim() || first}`, {
    fix: 'run it as root: sudo npm start',
  })
}

/** A bridge with an address, which stands for the LAN's switch and the server's network card in one. */
export async function addBridge(netns: Netns, bridge: { name: string; address: string }): Promise<void> {
  const { name, address } = bridge
  const ip = (...words: readonly string[]) => netns.run('ip', words)
  // A bridge without an address of its own takes its lowest port's, and changes it with each port: clients lose it.
  await ip(
    'link',
    'add',
    name,
    'address',
    BRIDGE_MAC,
    'type',
    'bridge',
    'stp_state',
    '0',
    'forward_delay',
    '0',
  )
  // A bridge has a carrier while a port has one: this one always does, so the server sees the interface up at once.
  await ip('link', 'add', `${name}-up`, 'type', 'veth', 'peer', 'name', `${name}-peer`)
  await ip('link', 'set', `${name}-up`, 'master', name, 'up')
  // Linux answers ARP on every interface for every address it has: without this the far end takes packets for the bridge's
  // address, which reach no socket that is tied to the bridge. Seen as PXE-E99 under load, where its answer came last.
  await ip('link', 'set', `${name}-peer`, 'arp', 'off', 'up')
  await ip('address', 'add', address, 'dev', name)
  await ip('link', 'set', name, 'up')
}

const BRIDGE_MAC = '52:54:00:77:00:01'

/** A port of the bridge for a virtual machine to plug into. */
export async function addTap(netns: Netns, tap: { name: string; bridge: string }): Promise<void> {
  await netns.run('ip', ['tuntap', 'add', 'dev', tap.name, 'mode', 'tap'])
  await netns.run('ip', ['link', 'set', tap.name, 'master', tap.bridge, 'up'])
}

/** The far end of a cable: a network card in another namespace. */
export interface CableEnd {
  readonly netns: Netns
  readonly interfaceName: string
  /** With its prefix length; without one the card has no address yet, as for a DHCP client. */
  readonly address?: string
  /** Default: one by chance. */
  readonly mac?: Mac
}

/** Joins another host to the bridge. `port` names the bridge's end and defaults to the far host's pid, which is unique. */
export async function addCable(
  netns: Netns,
  bridge: string,
  far: CableEnd,
  port = `port${far.netns.pid}`,
): Promise<void> {
  const { interfaceName: name, netns: host, address, mac } = far
  await netns.run('ip', [
    ...['link', 'add', port, 'type', 'veth', 'peer', 'name', name],
    ...(mac === undefined ? [] : ['address', mac]),
    ...['netns', String(host.pid)],
  ])
  await netns.run('ip', ['link', 'set', port, 'master', bridge, 'up'])
  if (address !== undefined) await host.run('ip', ['address', 'add', address, 'dev', name])
  await host.run('ip', ['link', 'set', name, 'up'])
}
