// Shows how far an import on the server is, until it is over.

import { setTimeout as sleep } from 'node:timers/promises'

import { systemClock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import type { JsonHttp } from '#lib/json-http.ts'
import type { ImportProgress } from '#machine/ports.ts'
import { createProgress } from '#setup/progress.ts'

import type { CliIo } from './cli-io.ts'

const EVERY_MS = 250

/** Resolves with the version. Throws KitError with the server's own words. An interruption leaves the import running. */
export async function followImport(http: JsonHttp, io: CliIo, id: string): Promise<string> {
  const step = createProgress(io.stderr, systemClock).begin('Importing the image')
  try {
    for (;;) {
      const progress = (await http.request('GET', `/api/v1/images/imports/${id}`)) as ImportProgress
      switch (progress.state) {
        case 'running':
          step.update(progress.percent, progress.text)
          break
        case 'done':
          step.done()
          return progress.version
        case 'failed':
          throw new KitError(
            'unavailable',
            progress.error,
            progress.fix === undefined ? {} : { fix: progress.fix },
          )
        default:
          progress satisfies never
      }
      await sleep(EVERY_MS, undefined, { signal: io.signal })
    }
  } catch (error) {
    step.failed()
    if (io.signal.aborted)
      io.stderr.write('The server goes on with the import; kateskit image list shows it then.\n')
    throw error
  }
}
