// The setting `update-window`: when a machine may restart for an update.

interface Span {
  /** 0 is Sunday. */
  readonly days: ReadonlySet<number>
  /** Minutes since midnight by the wall clock of the time zone. An end before the start is on the next day. */
  readonly startMinute: number
  readonly endMinute: number
  readonly wallClock: WallClock
}

type WallClock = (atMs: number) => { readonly day: number; readonly minute: number }

export interface UpdateWindow {
  isOpen(atMs: number): boolean
}

const DAYS: readonly string[] = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat']
const ALL_DAYS = new Set(DAYS.keys())

export const UPDATE_WINDOW_EXPECTED =
  'always, never, or times such as Mon-Fri 22:00-04:00 Europe/Berlin, several separated by semicolons'

/**
 * Undefined when the text is none. Days, times and the zone (by default the server's) are those of the wall clock, so
 * a window is an hour longer or shorter in a night when the clock is changed, and a time that such a night leaves out is left out.
 */
export function findUpdateWindow(text: string): UpdateWindow | undefined {
  if (text === 'always') return { isOpen: () => true }
  if (text === 'never') return { isOpen: () => false }
  const spans = text.split(/[;\n]/).map((part) => findSpan(part.trim()))
  const found = spans.filter((span) => span !== undefined)
  if (found.length !== spans.length) return undefined
  return { isOpen: (atMs) => found.some((span) => isWithin(span, atMs)) }
}

function findSpan(text: string): Span | undefined {
  const match = /^(?:(\S+)\s+)?(\d\d:\d\d)-(\d\d:\d\d)(?:\s+(\S+))?$/.exec(text)
  if (match === null) return undefined
  const [, daysText, start = '', end = '', zone] = match
  const days = daysText === undefined ? ALL_DAYS : findDays(daysText)
  const startMinute = findMinute(start)
  const endMinute = findMinute(end)
  const wallClock = findWallClock(zone)
  if (!days || startMinute === undefined || endMinute === undefined || !wallClock) return undefined
  if (startMinute === endMinute || startMinute === MIDNIGHT) return undefined // all day or never? It does not say
  return { days, startMinute, endMinute, wallClock }
}

const MIDNIGHT = 24 * 60

/** `24:00` is the end of a day. */
function findMinute(text: string): number | undefined {
  const [hour = 0, minute = 0] = text.split(':').map(Number)
  const sum = hour * 60 + minute
  return minute < 60 && sum <= MIDNIGHT ? sum : undefined
}

/** `Mon`, `Mon-Fri`, `Fri-Mon`, `Mon,Wed,Sat-Sun`. */
function findDays(text: string): ReadonlySet<number> | undefined {
  const days = new Set<number>()
  for (const part of text.split(',')) {
    const [first, last = first, ...more] = part.split('-').map((name) => DAYS.indexOf(name))
    if (first === undefined || last === undefined || first < 0 || last < 0 || more.length > 0)
      return undefined
    for (let day = first; ; day = (day + 1) % DAYS.length) {
      days.add(day)
      if (day === last) break
    }
  }
  return days
}

function findWallClock(timeZone: string | undefined): WallClock | undefined {
  let format: Intl.DateTimeFormat
  try {
    format = new Intl.DateTimeFormat('en-US', {
      ...(timeZone !== undefined && { timeZone }),
      weekday: 'short',
      hour: '2-digit',
      minute: '2-digit',
      hourCycle: 'h23',
    })
  } catch {
    return undefined // no such time zone
  }
  return (atMs) => {
    const parts = new Map(format.formatToParts(atMs).map(({ type, value }) => [type, value]))
    const day = DAYS.indexOf(parts.get('weekday') ?? '')
    return { day, minute: Number(parts.get('hour')) * 60 + Number(parts.get('minute')) }
  }
}

function isWithin({ days, startMinute, endMinute, wallClock }: Span, atMs: number): boolean {
  const { day, minute } = wallClock(atMs)
  if (startMinute < endMinute) return days.has(day) && minute >= startMinute && minute < endMinute
  const yesterday = (day + DAYS.length - 1) % DAYS.length
  return (days.has(day) && minute >= startMinute) || (days.has(yesterday) && minute < endMinute)
}
