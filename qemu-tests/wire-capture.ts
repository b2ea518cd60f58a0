// All that goes over the cables of a test's LAN, as it goes.

import { once } from 'node:events'
import { join } from 'node:path'

import { LAB_BRIDGE, type LabNetwork } from '#lab/lab-network.ts'

import type { Surroundings } from './test-lan.ts'

export interface WireCapture {
  readonly file: string
  /** Resolves, with how many packets are missing in it, when the file is whole. */
  stop(): Promise<number>
}

/** Two machines that download their images beside each other, while the disk is busy. */
const BUFFER_KIB = 256 * 1024
const GRACE_MS = 30_000

export async function captureWire(t: Surroundings, { netns, folder }: LabNetwork): Promise<WireCapture> {
  const file = join(folder, 'wire.pcap')
  const tcpdump = netns.start(
    'tcpdump',
    // As root: it would become a user of its own, who may not write here.
    [...['-i', LAB_BRIDGE, '-n', '-s', '0', '-B', String(BUFFER_KIB)], ...['-Z', 'root', '-w', file]],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  )
  t.teardown(() => tcpdump.kill())
  let said = ''
  tcpdump.process.stderr?.on('data', (chunk: Buffer) => {
    said += chunk.toString()
  })
  while (!said.includes('listening on')) {
    if (!tcpdump.isRunning()) throw new Error(`Cannot capture: ${said}`)
    if (tcpdump.process.stderr !== null) await once(tcpdump.process.stderr, 'data')
  }
  return {
    file,
    async stop() {
      await tcpdump.stop(GRACE_MS)
      const dropped = /(\d+) packets dropped by kernel/.exec(said)?.[1]
      if (dropped === undefined) throw new Error(`Cannot tell what is missing in ${file}: ${said}`)
      return Number(dropped)
    },
  }
}
