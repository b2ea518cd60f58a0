// Shows how far long steps are: a bar that is redrawn on a terminal, a line every ten per cent elsewhere.

import type { Clock } from '#lib/clock.ts'

import { barLine, duration, progressLine, type StepState } from './progress-text.ts'

export interface ProgressOutput {
  readonly isTTY?: boolean
  readonly columns?: number
  write(text: string): unknown
}

export interface StepProgress {
  /** `percent` 0–100; it never goes back. */
  update(percent: number, text?: string): void
  /** Once, when the step has ended well. */
  done(): void
  /** Once, when it has not; whoever failed says why. */
  failed(): void
}

export interface Progress {
  /** One step at a time. */
  begin(title: string, estimateSeconds?: number): StepProgress
  note(line: string): void
}

const REDRAW_MS = 1000
const LINE_EVERY_PERCENT = 10
const ERASE_LINE = '\r\x1b[K'

export function createProgress(output: ProgressOutput, clock: Clock): Progress {
  return {
    begin: (title, estimateSeconds) =>
      output.isTTY === true
        ? beginBar({ output, clock }, title, estimateSeconds)
        : beginLines({ output, clock }, title, estimateSeconds),
    note: (line) => void output.write(`${line}\n`),
  }
}

interface Surroundings {
  readonly output: ProgressOutput
  readonly clock: Clock
}

function beginBar({ output, clock }: Surroundings, title: string, estimateSeconds?: number): StepProgress {
  const startMs = clock.monotonicMs()
  let [percent, text] = [0, '']
  let cancel = () => {}
  const state = (): StepState => ({
    ...{ title, percent, text, estimateSeconds },
    elapsedMs: clock.monotonicMs() - startMs,
  })
  // Drawn every second too: the time that is left must move while the step is quiet.
  const draw = () => {
    cancel()
    output.write(`${ERASE_LINE}${barLine(state(), output.columns ?? 80)}`)
    cancel = clock.after(REDRAW_MS, draw)
  }
  const end = (line: string) => {
    cancel()
    output.write(`${ERASE_LINE}${line}`)
  }
  draw()
  return {
    update(next, what = text) {
      percent = Math.max(percent, Math.min(next, 100))
      text = what
      draw()
    },
    done: () => end(`${doneLine(state())}\n`),
    failed: () => end(''),
  }
}

function beginLines({ output, clock }: Surroundings, title: string, estimateSeconds?: number): StepProgress {
  const startMs = clock.monotonicMs()
  let percent = 0
  let shown = 0
  const state = (text: string): StepState => ({
    ...{ title, percent, text, estimateSeconds },
    elapsedMs: clock.monotonicMs() - startMs,
  })
  output.write(`${title} …${estimateSeconds === undefined ? '' : ` (about ${duration(estimateSeconds)})`}\n`)
  return {
    update(next, text = '') {
      percent = Math.max(percent, Math.min(next, 100))
      const tens = Math.floor(percent / LINE_EVERY_PERCENT)
      if (tens === shown || percent >= 100) return
      shown = tens
      output.write(`${progressLine(state(text))}\n`)
    },
    done: () => void output.write(`${doneLine(state(''))}\n`),
    failed() {},
  }
}

function doneLine({ title, elapsedMs }: StepState): string {
  return `${title}: done in ${duration(elapsedMs / 1000)}`
}
