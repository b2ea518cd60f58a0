// Cuts the power at every operation on the disk of an installation, updates, a bundle change and a powerwash, and looks
// what the machine would start then: run by simulator.bats, as root, in a mount namespace of its own.
//
// node simulator.ts WORK_FOLDER uefi|bios. The scripts are the real ones, under dash; kit-esp and kit-overlay are real file systems
// behind loop devices (ext4 for kit-esp, too, whose FAT this kernel may not have). Before each command that
// could change a disk, two states are taken: what has reached the disk, and what would be there had everything reached it.
// Beside those, states that a cut in the middle of a write or a rename on FAT leaves (torn.ts). From a part of all states
// the operation is run again, to its end.

import { mkdirSync, rmSync } from 'node:fs'
import { firstStart, judge, type Operation, operations } from './operations.ts'
import type { Firmware } from './rules.ts'
import { Runner } from './runner.ts'
import { SimulatedDisk } from './simulated-disk.ts'
import { makeImages } from './simulated-images.ts'
import { type Known, keyOf, type State } from './state.ts'
import { tornBetween } from './torn.ts'
import { countStart } from './trial.ts'

/** So many of an operation's states are carried on from; the others are only looked at. */
const recoveriesPerOperation = 4

const work = process.argv[2] ?? ''
const firmware: Firmware = process.argv[3] === 'bios' ? 'bios' : 'uefi'
const blank: State = { esp: new Map(), overlay: new Map(), partitions: new Map() }
const problems: string[] = []
let points = 0
let recoveries = 0

function say(text: string): void {
  process.stdout.write(`${text}\n`)
}

/** Every different state that a cut during the operation can leave, and its end. */
async function cut(
  operation: Operation,
  start: State,
  runner: Runner,
): Promise<{ states: State[]; end: State }> {
  const disk = new SimulatedDisk(`${work}/disk`, start)
  try {
    const live: State[] = []
    const durable: State[] = []
    const take = () => {
      live.push(disk.live())
      const state = disk.durable()
      if (state !== undefined) durable.push(state)
    }
    await runner.runCut(operation.name, disk, take)
    take()
    const torn = live.slice(1).flatMap((state, index) => tornBetween(live[index] ?? state, state))
    const all = [...durable, ...torn, ...live]
    const states = [...new Map(all.map((state) => [keyOf(state), state])).values()]
    return { states, end: live.at(-1) ?? start }
  } finally {
    disk.close()
  }
}

async function recover(operation: Operation, states: readonly State[], runner: Runner, known: Known) {
  const step = Math.max(1, states.length / recoveriesPerOperation)
  for (let place = 0; place < states.length; place += step) {
    const from = states[Math.floor(place)] ?? blank
    const { state, said } = await runner.runAgain(operation.name, from)
    recoveries++
    const first = firstStart(state, runner.firmware, known)
    const wrong = judge(state, operation, runner.firmware, known)
    if (first !== operation.ends)
      wrong.push(`carried on, it starts ${first} and not ${operation.ends}: ${said}`)
    for (const problem of wrong) problems.push(`${runner.firmware} ${operation.name}, run again: ${problem}`)
  }
}

async function simulate(known: Known): Promise<void> {
  const ends = new Map<string, State>()
  const runner = new Runner(work, firmware)
  for (const operation of operations) {
    if (operation.only !== undefined && operation.only !== firmware) continue
    const before = ends.get(operation.after ?? '') ?? blank
    const { states, end } = await cut(
      operation,
      operation.isTried ? countStart(before, firmware) : before,
      runner,
    )
    if (!ends.has(operation.name)) ends.set(operation.name, end)
    for (const state of states) {
      for (const problem of judge(state, operation, firmware, known)) {
        problems.push(`${firmware} ${operation.name}: ${problem}`)
      }
    }
    const first = firstStart(end, firmware, known)
    if (first !== operation.ends)
      problems.push(`${firmware} ${operation.name}: ends with ${first}, not ${operation.ends}`)
    await recover(operation, states, runner, known)
    points += states.length
    say(`${firmware} ${operation.name}: ${states.length} states`)
  }
}

rmSync(work, { recursive: true, force: true })
mkdirSync(work, { recursive: true })
const known = makeImages(work)
await simulate(known)
for (const problem of new Set(problems)) say(`WRONG ${problem}`)
say(`checked ${points} points, carried on from ${recoveries}, ${new Set(problems).size} problems`)
process.exitCode = problems.length === 0 ? 0 : 1
