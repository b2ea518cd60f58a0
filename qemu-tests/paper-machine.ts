// A machine that only says it is one: it checks in as an installed machine does and never does what it is told. A fleet
// needs more machines than two cores can emulate. Its setting `identity` is mac-only, for it has no console.

import { createHash, randomBytes } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import type { Netns } from '#lab/netns.ts'
import { type Mac, macToPath, parseMac } from '#lib/mac.ts'
import { makeMachineKeys } from '#testing/test-machine.ts'

import type { Surroundings } from './test-lan.ts'

export interface PaperMachine {
  readonly mac: Mac
  /** Checks in as running that image from slot a. */
  runs(image: string, bundle: string): Promise<void>
  /** What it should be running: the answer of `/target`, by name. */
  target(): Promise<ReadonlyMap<string, string>>
}

const PLAIN = 'http://10.77.0.1:8080'
const SERVER = 'https://10.77.0.1:8443'

export async function startPaperMachine(t: Surroundings, netns: Netns): Promise<PaperMachine> {
  const mac = parseMac('02:4b:69:74:00:99')
  const folder = await mkdtemp(join(tmpdir(), 'kit-paper-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const own = await proveItself(netns, { mac, folder })
  const curl = (path: string, body?: unknown) => say(netns, { url: urlOf(mac, path), own, body })
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

const urlOf = (mac: Mac, path: string) => `${SERVER}/v1/machines/${macToPath(mac)}${path}`

/** Gets a certificate; resolves with what curl needs to show it. */
async function proveItself(
  netns: Netns,
  { mac, folder }: { mac: Mac; folder: string },
): Promise<readonly string[]> {
  const [ca, key, certificate] = ['ca', 'key', 'certificate'].map((name) => join(folder, `${name}.pem`))
  await writeFile(`${ca}`, await say(netns, { url: `${PLAIN}/v1/ca.pem` }))
  const keys = await makeMachineKeys()
  await writeFile(`${key}`, keys.key, { mode: 0o600 })
  const commitment = createHash('sha256').update(randomBytes(16).toString('hex')).digest('hex')
  const body = { csr: keys.csr, macs: [mac], commitment }
  const step = await say(netns, { url: urlOf(mac, '/identity'), own: ['--cacert', `${ca}`], body })
  await writeFile(`${certificate}`, step.slice(step.indexOf('\n\n') + 2))
  return ['--cacert', `${ca}`, '--key', `${key}`, '--cert', `${certificate}`]
}

function say(
  netns: Netns,
  { url, own = [], body }: { url: string; own?: readonly string[]; body?: unknown },
): Promise<string> {
  return netns.run('curl', [
    ...['--silent', '--show-error', '--fail-with-body', '--max-time', '30', ...own],
    ...(body === undefined ? [] : ['--header', 'content-type: application/json']),
    ...(body === undefined ? [] : ['--data', JSON.stringify(body)]),
    url,
  ])
}
