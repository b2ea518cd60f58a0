// A LAN with several hosts: a bridge in this thread's network, and a neighbour on each of its cables.

import type { ChildProcess } from 'node:child_process'
import { EventEmitter, once } from 'node:events'
import { createInterface } from 'node:readline'

import { addNeighbour, ip, type Neighbour } from './own-network.ts'

export interface Lan {
  /** Adds a host; without an address it has none on its `eth0`. */
  addHost(address?: string): Promise<Neighbour>
  /** Adds a host that only `gateway` reaches, by its `eth1` with that address. */
  addHostBehind(gateway: Neighbour, address: string): Promise<Neighbour>
  stop(): void
}

/** The bridge `name` with this thread's address on it. Call `enterOwnNetwork` first. */
export async function makeLan(name: string, address: string): Promise<Lan> {
  await ip(`link add name ${name} type bridge`)
  await ip(`address add ${address} dev ${name}`)
  await ip(`link set dev ${name} up`)
  const hosts: Neighbour[] = []
  return {
    async addHost(hostAddress) {
      const port = `${name}p${hosts.length}`
      const host = await addNeighbour({ name: port, address: '169.254.0.1/32' }, hostAddress)
      hosts.push(host)
      await ip(`address flush dev ${port}`)
      await ip(`link set dev ${port} master ${name}`)
      return host
    },
    async addHostBehind(gateway, gatewayAddress) {
      const port = `${name}p${hosts.length}`
      const host = await addNeighbour({ name: port, address: '169.254.0.1/32' })
      hosts.push(host)
      await ip(`link delete dev ${port}`)
      await ip(`link add name eth1 netns ${gateway.pid} type veth peer name eth0 netns ${host.pid}`)
      await gateway.run('ip', 'address', 'add', gatewayAddress, 'dev', 'eth1')
      await gateway.run('ip', 'link', 'set', 'dev', 'eth1', 'up')
      await host.run('ip', 'link', 'set', 'dev', 'eth0', 'up')
      return host
    },
    stop: () => {
      for (const host of hosts) host.stop()
    },
  }
}

/** What a process prints on both its outputs, line by line: wait for what it says instead of for time to pass. */
export interface Lines {
  readonly all: readonly string[]
  /**
   * Resolves with the first line not yet waited for that matches: the two outputs overtake each other. Rejects, with
   * all lines, when the process ends before or stays silent for too long.
   */
  next(pattern: RegExp, patienceMs?: number): Promise<string>
}

const PATIENCE_MS = 30_000

export function linesOf(child: ChildProcess): Lines {
  const all: string[] = []
  const waitedFor = new Set<number>()
  const news = new EventEmitter().setMaxListeners(0)
  let hasEnded = false
  for (const stream of [child.stdout, child.stderr]) {
    if (stream === null) continue
    createInterface({ input: stream }).on('line', (line) => {
      all.push(line)
      news.emit('news')
    })
  }
  child.once('close', () => {
    hasEnded = true
    news.emit('news')
  })
  return {
    all,
    async next(pattern, patienceMs = PATIENCE_MS) {
      const patience = AbortSignal.timeout(patienceMs)
      for (;;) {
        const at = all.findIndex((line, index) => !waitedFor.has(index) && pattern.test(line))
        if (at >= 0) {
          waitedFor.add(at)
          return all[at] ?? ''
        }
        if (hasEnded) throw new Error(`It ended without saying ${pattern}:\n${all.join('\n')}`)
        await once(news, 'news', { signal: patience }).catch((cause) => {
          throw new Error(`It does not say ${pattern}:\n${all.join('\n')}`, { cause })
        })
      }
    },
  }
}
