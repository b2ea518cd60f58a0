// What people want to see when a test of whole machines has failed: the history, the server's log, and the machines' consoles. On standard
// error, and so before the failure itself, which stays together.

import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

import type { LabNetwork } from '#lab/lab-network.ts'
import type { ServerClient } from '#lab/server-client.ts'
import { describeError } from '#lib/errors.ts'

const EVENTS = 40
const LOG_TAIL_BYTES = 6_000
const CONSOLE_LINES = 60
const FOLLOW_MS = 10_000

interface ShownMachine {
  readonly spec: { readonly name: string }
  readonly serial: { tail(lines: number): string }
}

export async function tellWhatHappened(
  network: LabNetwork,
  machines: readonly ShownMachine[],
): Promise<void> {
  const log = await readFile(join(network.folder, 'server.log'), 'utf8').catch(() => 'no log')
  const problems = network.pairingProblems()
  const parts = [
    ...machines.map(({ spec, serial }) => [`console of ${spec.name}`, serial.tail(CONSOLE_LINES)]),
    ...(problems.length > 0 ? [['not paired', problems.join('\n')]] : []),
    ['server', log.slice(-LOG_TAIL_BYTES)],
    ['history', await historyOf(network.server.client)],
  ]
  const text = parts.map(([title, lines]) => `${title}:\n${lines}`).join('\n\n')
  process.stderr.write(`${text.replace(/^/gm, '# ')}\n`)
}

async function historyOf(client: ServerClient): Promise<string> {
  const lines: string[] = []
  try {
    const lastId = await client.lastEventId()
    for await (const { id, kind, mac, message } of client.follow(
      Math.max(0, lastId - EVENTS),
      AbortSignal.timeout(FOLLOW_MS),
    )) {
      lines.push([kind, mac, message].filter((word) => word !== undefined).join(' '))
      if (id >= lastId) break
    }
  } catch (error) {
    lines.push(describeError(error))
  }
  return lines.join('\n')
}
