// How far a long step is, in words and as a bar: pure text.

export interface StepState {
  readonly title: string
  /** 0–100. */
  readonly percent: number
  /** What it is doing; may be empty. */
  readonly text: string
  readonly elapsedMs: number
  /** How long the whole step took elsewhere; believed until the step itself tells better. */
  readonly estimateSeconds: number | undefined
}

const BAR_CELLS = 24

/** Below this percentage the first parts of a step say little about the rest. */
const MEANINGFUL_PERCENT = 10

/** Undefined when nothing is known. */
export function remainingSeconds(state: StepState): number | undefined {
  const { percent, elapsedMs, estimateSeconds } = state
  const elapsedSeconds = elapsedMs / 1000
  if (percent >= MEANINGFUL_PERCENT) return (elapsedSeconds * (100 - percent)) / percent
  return estimateSeconds === undefined ? undefined : Math.max(estimateSeconds - elapsedSeconds, 0)
}

/** One line of at most `columns` characters, for a terminal that redraws it. */
export function barLine(state: StepState, columns: number): string {
  const full = Math.round((state.percent / 100) * BAR_CELLS)
  const bar = `${'#'.repeat(full)}${'.'.repeat(BAR_CELLS - full)}`
  const percent = `${Math.floor(state.percent)} %`.padStart(5)
  const left = remainingSeconds(state)
  const parts = [`${state.title} [${bar}] ${percent}`, left === undefined ? '' : timeLeft(left), state.text]
  return parts
    .filter((part) => part !== '')
    .join('  ')
    .slice(0, columns - 1)
}

/** One line for a log. */
export function progressLine(state: StepState): string {
  const left = remainingSeconds(state)
  const notes = [state.text, left === undefined ? '' : timeLeft(left)].filter((part) => part !== '')
  return `${state.title}: ${Math.floor(state.percent)} %${notes.length === 0 ? '' : ` (${notes.join(', ')})`}`
}

function timeLeft(seconds: number): string {
  return seconds < 1 ? 'nearly done' : `about ${duration(seconds)} left`
}

/** `40 s`, `3 min`, `1 h 5 min`: as exact as an estimate deserves. */
export function duration(seconds: number): string {
  if (seconds < 90) return `${Math.ceil(seconds)} s`
  const minutes = Math.round(seconds / 60)
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`
}
