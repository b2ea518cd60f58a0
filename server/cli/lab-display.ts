// Shows the lab: a table that redraws itself on a terminal, lines in a log, JSON for programs.

import type { Lab } from '#lab/lab.ts'
import { notReadyReason, phasesText, statusJson, statusLine, statusTable } from '#lab/status-text.ts'
import { isReady, type MachineStatus } from '#lab/watch.ts'
import { macToPath } from '#lib/mac.ts'

import { type CliIo, type CliOutput, printJson, printLines } from './cli-io.ts'

export interface LabDisplay {
  /** Every machine has arrived; what to try next. */
  arrived(): void
  /** With `--until`: the last word on every machine. */
  result(outcome: { readonly ready: boolean }): void
  stop(): void
}

const REDRAW_MS = 1000

export function createLabDisplay(io: CliIo, lab: Lab, { json }: { readonly json: boolean }): LabDisplay {
  if (json) return createJsonDisplay(io.stdout, lab)
  printLines(io.stdout, ['', `API    ${lab.apiUrl}/api/v1`, `Token  ${lab.token}   (for this lab)`, ''])
  return io.stdout.isTTY === true ? createTableDisplay(io.stdout, lab) : createLineDisplay(io.stdout, lab)
}

function createTableDisplay(output: CliOutput, lab: Lab): LabDisplay {
  let drawn = 0
  const draw = () => {
    const columns = output.columns ?? 80
    // A line that wraps would break the count of lines to go back up.
    const lines = statusTable(lab.watch.statuses(), Date.now()).map((line) => line.slice(0, columns - 1))
    const up = drawn === 0 ? '' : `\x1b[${drawn}A`
    output.write(`${up}${lines.map((line) => `\x1b[K${line}\n`).join('')}\x1b[J`)
    drawn = lines.length
  }
  const timer = setInterval(draw, REDRAW_MS) // the seconds move on while nothing else does
  const forget = lab.watch.onChange(draw)
  draw()
  const say = (lines: readonly string[]) => {
    draw()
    printLines(output, lines)
    drawn = 0 // the next table goes below what was said
  }
  return {
    arrived() {
      say(['', ...whatToTry(lab)])
    },
    result: () => say(['', ...resultLines(lab)]),
    stop() {
      clearInterval(timer)
      forget()
    },
  }
}

function createLineDisplay(output: CliOutput, lab: Lab): LabDisplay {
  const forget = onPhaseChange(lab, (status) => output.write(`${statusLine(status)}\n`))
  return {
    arrived: () => printLines(output, ['', ...whatToTry(lab)]),
    result: () => printLines(output, ['', ...resultLines(lab)]),
    stop: forget,
  }
}

/** One object a line; docs/ports-and-endpoints.md is not needed to read them: `kind` tells what each is. */
function createJsonDisplay(output: CliOutput, lab: Lab): LabDisplay {
  const { apiUrl, token, network } = lab
  printJson(output, { kind: 'lab', apiUrl, token, folder: network.folder })
  const forget = onPhaseChange(lab, ({ machine, progress }) => {
    printJson(output, { kind: 'phase', mac: machine.mac, name: machine.name, phase: progress.phase })
  })
  return {
    arrived: () => lab.watch.statuses().forEach((status) => void printJson(output, statusJson(status))),
    result({ ready }) {
      for (const status of lab.watch.statuses()) {
        const console = isReady(status) ? undefined : lab.consoleOf(status.machine.mac)
        printJson(output, { ...statusJson(status), console })
      }
      printJson(output, { kind: 'result', ready })
    },
    stop: forget,
  }
}

/** Calls `tell` once for each phase of each machine, and once more when one is ready. */
function onPhaseChange(lab: Lab, tell: (status: MachineStatus) => void): () => void {
  const told = new Map<string, string>()
  return lab.watch.onChange(() => {
    for (const status of lab.watch.statuses()) {
      const now = `${status.progress.phase} ${isReady(status)} ${status.progress.reason}`
      if (told.get(status.machine.mac) === now) continue
      told.set(status.machine.mac, now)
      tell(status)
    }
  })
}

function resultLines(lab: Lab): readonly string[] {
  return lab.watch.statuses().flatMap((status) => {
    const line = `${statusLine(status)} (${phasesText(status)})`
    if (isReady(status)) return [line]
    const log = status.progress.failureLog ?? lab.consoleOf(status.machine.mac)
    return [line, `  ${notReadyReason(status)}`, ...log.split('\n').map((text) => `    ${text}`)]
  })
}

function whatToTry(lab: Lab): readonly string[] {
  const first = lab.watch.statuses()[0]?.machine
  const mac = first?.mac ?? '<mac>'
  const path = first === undefined ? '<mac>' : macToPath(first.mac)
  return [
    'Every machine has arrived. What to try, in another terminal:',
    '  ./bin/kateskit machines                       see them',
    `  ./bin/kateskit overlay explain ${mac}  which file came from which layer`,
    `  ./bin/kateskit config explain ${mac}   which file set what`,
    '  ./bin/kateskit events --follow                watch what happens, and then:',
    `  echo hello > profiles/machines/${path}/root/etc/motd`,
    '                                                it arrives on the machine while it runs',
    ...(first === undefined
      ? []
      : [`  ./bin/kateskit console ${first.name}                     its console; Ctrl-] leaves it`]),
    '  sudo npm start -- --interface eth0            serve a real LAN instead of this one',
    'Ctrl-C stops the lab and leaves nothing behind.',
    '',
  ]
}
