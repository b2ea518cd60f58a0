// The person in front of a lab machine: reads the code on its console and tells the server that it is right.

import { setTimeout as sleep } from 'node:timers/promises'

import { describeError, KitError } from '#lib/errors.ts'
import { type Mac, parseMac } from '#lib/mac.ts'

import type { SerialLog } from './serial-log.ts'
import type { ServerClient } from './server-client.ts'

/**
 * Which machines are paired by themselves. `unknown`: those that the server knows no key of. `all`: also those that come
 * with another key than before, as after a change of the disk; a person would look first.
 */
export type PairingRule = 'off' | 'unknown' | 'all'

export interface PairingLine {
  readonly mac: Mac
  readonly code: string
  /** The server knows another key for this machine: only a person takes it in. */
  readonly needsReplace: boolean
}

/** docs/security.md, "The code". Both codes must agree: the kernel may have written into the line. */
const LINE =
  /kit: pairing code ([0-9A-HJKMNP-TV-Z]{3}-[0-9A-HJKMNP-TV-Z]{3}): kateskit pair ((?:[0-9a-f]{2}:){5}[0-9a-f]{2}) \1( --replace)?(?!\S)/

/** Every line of a console that asks for pairing, in order; the last one may not be whole yet and does not count. */
export function findPairingLines(text: string): readonly PairingLine[] {
  return text
    .split('\n')
    .slice(0, -1)
    .flatMap((line) => {
      const [, code, mac, replace] = LINE.exec(line) ?? []
      if (code === undefined || mac === undefined) return []
      return [{ mac: parseMac(mac), code, needsReplace: replace !== undefined }]
    })
}

export interface PairingOptions {
  readonly serial: Pick<SerialLog, 'text' | 'onGrowth'>
  readonly client: Pick<ServerClient, 'pair'>
  readonly rule: Exclude<PairingRule, 'off'>
}

export interface Pairing {
  /** What was not paired, and why; one line each. */
  problems(): readonly string[]
  /** Resolves when nothing is under way any more. */
  stop(): Promise<void>
}

/** A restarted server needs about a second to answer again. */
const AGAIN_MS = 250

/** Each code is tried once, whatever comes of it: three wrong ones close every attempt that waits. */
export function pairByConsole({ serial, client, rule }: PairingOptions): Pairing {
  const aborted = new AbortController()
  const seen = new Set<string>()
  const problems: string[] = []
  let readUntil = 0
  let working: Promise<void> = Promise.resolve()

  const take = async (line: PairingLine) => {
    if (aborted.signal.aborted) return
    if (line.needsReplace && rule !== 'all') {
      problems.push(`${line.mac} is known with another key: kateskit pair ${line.mac} ${line.code} --replace`)
      return
    }
    try {
      await pairPatiently(client, line, aborted.signal)
    } catch (error) {
      problems.push(`${line.mac}: ${describeError(error)}`)
    }
  }
  const read = () => {
    const { text } = serial
    for (const line of findPairingLines(text.slice(readUntil))) {
      const key = `${line.mac} ${line.code} ${line.needsReplace}`
      if (seen.has(key)) continue // consoles repeat it for as long as they wait
      seen.add(key)
      working = working.then(() => take(line))
    }
    readUntil = text.lastIndexOf('\n') + 1
  }

  const forget = serial.onGrowth(read)
  read()
  return {
    problems: () => problems,
    async stop() {
      forget()
      aborted.abort()
      await working
    },
  }
}

/** A server that is being restarted is waited for: should it have forgotten the attempt, it says so. */
async function pairPatiently(
  client: PairingOptions['client'],
  { mac, code, needsReplace }: PairingLine,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    try {
      return await client.pair(mac, code, { replace: needsReplace })
    } catch (error) {
      if (!(error instanceof KitError && error.code === 'unavailable')) throw error
    }
    await sleep(AGAIN_MS, undefined, { signal }).catch(() => {}) // aborted: the loop sees it
  }
}
