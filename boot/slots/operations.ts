// The operations that are cut, from which state each begins, and what the machine may start at any moment of it.

import { type Choice, choices, type Firmware } from './rules.ts'
import { type Known, problemsOf, type State, startsOf } from './state.ts'

export type Operation = {
  /** As operations.sh knows it. */
  readonly name: string
  /** The operation whose end is the beginning of this one; undefined: a blank disk. */
  readonly after?: string
  /** What the loader does on its own before: it counts a start of the slot on trial. */
  readonly isTried?: boolean
  /** `<slot> <image version>[ trial]`, `network` or `nothing`. */
  readonly mayStart: readonly string[]
  /** What may come after a trial that failed. */
  readonly mayFallBack?: readonly string[]
  readonly ends: string
  /** Not on the other, where nothing of it is on the disk. */
  readonly only?: Firmware
}

export const operations: readonly Operation[] = [
  {
    name: 'install',
    mayStart: ['nothing', 'network', 'a 1 trial'],
    mayFallBack: ['network'],
    ends: 'a 1 trial',
  },
  {
    name: 'bless-a',
    after: 'install',
    isTried: true,
    mayStart: ['a 1 trial', 'a 1'],
    mayFallBack: ['network', 'a 1'],
    ends: 'a 1',
  },
  {
    name: 'update',
    after: 'bless-a',
    mayStart: ['a 1', 'b 2 trial'],
    mayFallBack: ['a 1'],
    ends: 'b 2 trial',
  },
  {
    name: 'bless-b',
    after: 'update',
    isTried: true,
    mayStart: ['b 2 trial', 'b 2'],
    mayFallBack: ['a 1', 'b 2'],
    ends: 'b 2',
  },
  {
    name: 'condemn-b',
    after: 'update',
    isTried: true,
    mayStart: ['b 2 trial', 'a 1'],
    mayFallBack: ['a 1'],
    ends: 'a 1',
  },
  {
    name: 'update',
    after: 'condemn-b',
    mayStart: ['a 1', 'b 2 trial'],
    mayFallBack: ['a 1'],
    ends: 'b 2 trial',
  },
  {
    name: 'restage',
    after: 'condemn-b',
    mayStart: ['a 1', 'b 2 trial'],
    mayFallBack: ['a 1'],
    ends: 'b 2 trial',
  },
  {
    name: 'update-back',
    after: 'bless-b',
    mayStart: ['b 2', 'a 3 trial'],
    mayFallBack: ['b 2'],
    ends: 'a 3 trial',
  },
  { name: 'condemn-b', after: 'bless-b', mayStart: ['b 2', 'a 1'], ends: 'a 1' },
  { name: 'switch-to-a', after: 'bless-b', mayStart: ['b 2', 'a 1'], ends: 'a 1' },
  { name: 'bundle', after: 'bless-a', mayStart: ['a 1'], ends: 'a 1' },
  { name: 'network', after: 'bless-a', mayStart: ['a 1', 'network'], ends: 'network', only: 'bios' },
  {
    name: 'powerwash',
    after: 'bless-b',
    mayStart: ['b 2', 'a 1', 'network', 'a 2 trial'],
    mayFallBack: ['network'],
    ends: 'a 2 trial',
  },
]

/** What is wrong with a state that a cut during the operation leaves; empty when the machine gets on by itself. */
export function judge(state: State, operation: Operation, firmware: Firmware, known: Known): string[] {
  const starts = startsOf(state, firmware)
  // Every slot the loader could ever come to, not only the next.
  const problems = choices(state.esp, firmware).flatMap((start) =>
    start.kind === 'slot' ? problemsOf(state, start, known) : [],
  )
  const [first, ...rest] = starts.map((start) => describe(start, known))
  if (!operation.mayStart.includes(first ?? '')) problems.push(`starts ${first}`)
  const last = rest.at(-1)
  if (last !== undefined && operation.mayFallBack?.includes(last) !== true) {
    problems.push(`after the trial failed it starts ${last}`)
  }
  return problems
}

export function firstStart(state: State, firmware: Firmware, known: Known): string {
  const [first] = startsOf(state, firmware)
  return first === undefined ? 'nothing' : describe(first, known)
}

function describe(choice: Choice, known: Known): string {
  if (choice.kind !== 'slot') return choice.kind
  const rootHash = /kit\.root-hash=(\S*)/.exec(choice.options)?.[1] ?? ''
  const version = known.images.get(rootHash)?.version ?? 'unknown'
  return `${choice.slot} ${version}${choice.isTrial ? ' trial' : ''}`
}
