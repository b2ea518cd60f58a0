// Imports that people asked for: one at a time, each with an id by which its progress is asked for.

import { randomUUID } from 'node:crypto'

import { KitError } from '#lib/errors.ts'
import { createKeyedQueue } from '#lib/keyed-queue.ts'
import type { ImportProgress } from '#machine/ports.ts'

/** Finished ones that are still remembered: whoever started one asks how it ended soon. */
const REMEMBERED = 100

export interface ImportWork {
  /** The same for two imports of the same thing. */
  readonly source: string
  /** Resolves with the version. Throws KitError. */
  readonly run: (onProgress: (percent: number, text: string) => void) => Promise<string>
}

export class ImportJobs {
  readonly #jobs = new Map<string, { progress: ImportProgress; readonly done: Promise<string> }>()
  /** By source: those that wait or run. */
  readonly #active = new Map<string, string>()
  readonly #queue = createKeyedQueue<'import'>()

  start({ source, run }: ImportWork): string {
    const joined = this.#active.get(source)
    if (joined !== undefined) return joined
    const id = randomUUID()
    const note = (progress: ImportProgress) => {
      const job = this.#jobs.get(id)
      if (job !== undefined) job.progress = progress
    }
    const done = this.#queue
      .run('import', () => run((percent, text) => note({ state: 'running', percent, text })))
      .finally(() => this.#active.delete(source))
    this.#active.set(source, id)
    const isAlone = this.#active.size === 1
    const text = isAlone ? 'reading it' : 'waiting for another import to end'
    this.#jobs.set(id, { progress: { state: 'running', percent: 0, text }, done })
    done.then(
      (version) => note({ state: 'done', percent: 100, text: `image ${version}`, version }),
      (error: unknown) => note(failed(this.#jobs.get(id)?.progress.percent ?? 0, error)),
    )
    this.#forgetOld()
    return id
  }

  progress(id: string): ImportProgress | undefined {
    return this.#jobs.get(id)?.progress
  }

  async done(id: string): Promise<string> {
    const job = this.#jobs.get(id)
    if (job === undefined) throw new KitError('not-found', `Cannot find the import ${JSON.stringify(id)}`)
    return job.done
  }

  /** Resolves when none is under way. */
  async settle(): Promise<void> {
    await Promise.allSettled([...this.#jobs.values()].map(({ done }) => done))
  }

  #forgetOld(): void {
    const active = new Set(this.#active.values())
    for (const id of this.#jobs.keys()) {
      if (this.#jobs.size <= REMEMBERED) return
      if (!active.has(id)) this.#jobs.delete(id)
    }
  }
}

function failed(percent: number, error: unknown): ImportProgress {
  const known = error instanceof KitError ? error : undefined
  return {
    state: 'failed',
    percent,
    text: 'failed',
    error: known?.message ?? 'Cannot import the image: see the log of the server',
    ...(known?.fix !== undefined && { fix: known.fix }),
  }
}
