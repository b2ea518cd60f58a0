// Shows how far an import on the server is, until it is over.

import { resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import { systemClock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import type { JobProgress } from '#lib/import-jobs.ts'
import type { JsonHttp } from '#lib/json-http.ts'
import { createProgress } from '#setup/progress.ts'

import type { CliIo } from './cli-io.ts'

const EVERY_MS = 250

export interface FollowedImport {
  /** `/api/v1/images/imports/<id>`. */
  readonly path: string
  readonly title: string
  /** The command that shows later what has come of it. */
  readonly later: string
}

/** Resolves with what came of it. Throws KitError with the server's own words. An interruption leaves the import running. */
export async function followImport<Result>(
  http: JsonHttp,
  io: CliIo,
  followed: FollowedImport,
): Promise<Result> {
  const step = createProgress(io.stderr, systemClock).begin(followed.title)
  try {
    for (;;) {
      const progress = (await http.request('GET', followed.path)) as JobProgress<Result>
      if (progress.state === 'done') {
        step.done()
        return progress
      }
      if (progress.state === 'failed') {
        const { error, fix } = progress
        throw new KitError('unavailable', error, fix === undefined ? {} : { fix })
      }
      step.update(progress.percent, progress.text)
      await sleep(EVERY_MS, undefined, { signal: io.signal })
    }
  } catch (error) {
    step.failed()
    if (io.signal.aborted)
      io.stderr.write(`The server goes on with the import; ${followed.later} shows it then.\n`)
    throw error
  }
}

/** The server has another working directory than the person. */
export function absoluteSource(source: string): string {
  return /^https?:\/\//i.test(source) ? source : resolve(source)
}
