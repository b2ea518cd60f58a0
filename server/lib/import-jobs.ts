// Imports that people asked for: one at a time, each with an id by which its progress is asked for.

import { randomUUID } from 'node:crypto'

import { KitError } from './errors.ts'
import { createKeyedQueue } from './keyed-queue.ts'

/** Finished ones that are still remembered: whoever started one asks how it ended soon. */
const REMEMBERED = 100

/** How far an import is; `Result` is what came of it. */
export type JobProgress<Result> =
  | { readonly state: 'running'; readonly percent: number; readonly text: string }
  | ({ readonly state: 'done'; readonly percent: 100; readonly text: string } & Result)
  | {
      readonly state: 'failed'
      readonly percent: number
      readonly text: string
      readonly error: string
      readonly fix?: string
    }

export type OnProgress = (percent: number, text: string) => void

export interface ImportWork<Result> {
  /** The same for two imports of the same thing. */
  readonly source: string
  /** Throws KitError. */
  readonly run: (onProgress: OnProgress) => Promise<Result>
}

export interface ImportWords<Result> {
  /** What is imported, as in `Cannot import the image`. */
  readonly what: string
  readonly describe: (result: Result) => string
}

export class ImportJobs<Result extends object> {
  readonly #words: ImportWords<Result>
  readonly #jobs = new Map<string, { progress: JobProgress<Result>; readonly done: Promise<Result> }>()
  /** By source: those that wait or run. */
  readonly #active = new Map<string, string>()
  readonly #queue = createKeyedQueue<'import'>()

  constructor(words: ImportWords<Result>) {
    this.#words = words
  }

  start({ source, run }: ImportWork<Result>): string {
    const joined = this.#active.get(source)
    if (joined !== undefined) return joined
    const id = randomUUID()
    const note = (progress: JobProgress<Result>) => {
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
      (result) => note({ state: 'done', percent: 100, text: this.#words.describe(result), ...result }),
      (error: unknown) => note(this.#failed(this.#jobs.get(id)?.progress.percent ?? 0, error)),
    )
    this.#forgetOld()
    return id
  }

  progress(id: string): JobProgress<Result> | undefined {
    return this.#jobs.get(id)?.progress
  }

  async done(id: string): Promise<Result> {
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

  #failed(percent: number, error: unknown): JobProgress<Result> {
    const known = error instanceof KitError ? error : undefined
    return {
      state: 'failed',
      percent,
      text: 'failed',
      error: known?.message ?? `Cannot import ${this.#words.what}: see the log of the server`,
      ...(known?.fix !== undefined && { fix: known.fix }),
    }
  }
}
