// A machine that only says it is one: it checks in as an installed machine does and never does what it is told. A fleet
// needs more machines than two cores can emulate.

import type { Netns } from '#lab/netns.ts'
import { type Mac, macToPath, parseMac } from '#lib/mac.ts'

export interface PaperMachine {
  readonly mac: Mac
  /** Checks in as running that image from slot a. */
  runs(image: string, bundle: string): Promise<void>
  /** What it should be running: the answer of `/target`, by name. */
  target(): Promise<ReadonlyMap<string, string>>
}

const SERVER = 'http://10.77.0.1:8080'

export async function startPaperMachine(netns: Netns): Promise<PaperMachine> {
  const mac = parseMac('02:4b:69:74:00:99')
  const base = `${SERVER}/v1/machines/${macToPath(mac)}`
  const curl = (path: string, body?: unknown) =>
    netns.run('curl', [
      ...['--silent', '--show-error', '--fail-with-body', '--max-time', '30'],
      ...(body === undefined ? [] : ['--header', 'content-type: application/json']),
      ...(body === undefined ? [] : ['--data', JSON.stringify(body)]),
      `${base}${path}`,
    ])
  const boot = (await curl('/boots', { slot: 'a' })).trim().replace(/^boot /, '')
  return {
    mac,
    async runs(image, bundle) {
      await curl('/check-in', {
        ...{ boot, phase: 'running', image, bundle, slot: 'a', checks: 'passed' },
        slots: { a: { state: 'good', image, bundle }, b: { state: 'empty' } },
      })
    },
    async target() {
      const lines = (await curl(`/target?boot=${boot}`)).trim().split('\n')
      return new Map(
        lines.map((line) => [line.slice(0, line.indexOf(' ')), line.slice(line.indexOf(' ') + 1)]),
      )
    },
  }
}
