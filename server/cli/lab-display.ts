// Shows the lab: a table that redraws itself on a terminal, lines in a log, JSON for programs.

import type { Lab } from '#lab/lab.ts'
import { notReadyReason, phasesText, statusJson, statusLine, statusTable } from '#lab/status-text.ts'
import { isReady, type MachineStatus } from '#lab/watch.ts'
import type { Mac } from '#lib/mac.ts'

import { type CliIo, type CliOutput, printJson, printLines } from './cli-io.ts'

export interface LabDisplay {
  /** Every machine has arrived; what to try next, with the kubectl of their cluster if they are one. */
  arrived(kubectl?: string): void
  /** With `--until`: the last word on every machine. */
  result(outcome: { readonly ready: boolean }): void
  stop(): void
}

const REDRAW_MS = 1000

export function createLabDisplay(io: CliIo, lab: Lab, { json }: { readonly json: boolean }): LabDisplay {
  if (json) return createJsonDisplay(io.stdout, lab)
  printLines(io.stdout, ['', `API    ${lab.apiUrl}/api/v1`, `Token  ${lab.token}`, ''])
  return io.stdout.isTTY === true ? createTableDisplay(io.stdout, lab) : createLineDisplay(io.stdout, lab)
}

function createTableDisplay(output: CliOutput, lab: Lab): LabDisplay {
  let drawn = 0
  let below: readonly string[] = []
  const draw = () => {
    const columns = output.columns ?? 80
    // A line that wraps would break the count of lines to go back up.
    const lines = [...statusTable(lab.watch.statuses(), Date.now()), ...below].map((line) =>
      line.slice(0, columns - 1),
    )
    const up = drawn === 0 ? '' : `\x1b[${drawn}A`
    output.write(`${up}${lines.map((line) => `\x1b[K${line}\n`).join('')}\x1b[J`)
    drawn = lines.length
  }
  const timer = setInterval(draw, REDRAW_MS) // the seconds move on while nothing else does
  const forget = lab.watch.onChange(draw)
  const stop = () => {
    clearInterval(timer)
    forget()
  }
  draw()
  return {
    arrived(kubectl) {
      below = ['', ...whatToTry(lab, kubectl)]
      draw()
    },
    result() {
      draw()
      stop() // consoles may be longer than the screen
      printLines(output, ['', ...resultLines(lab)])
    },
    stop,
  }
}

function createLineDisplay(output: CliOutput, lab: Lab): LabDisplay {
  const forget = onPhaseChange(lab, (status) => output.write(`${statusLine(status)}\n`))
  return {
    arrived: (kubectl) => printLines(output, ['', ...whatToTry(lab, kubectl)]),
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
      const now = `${status.progress.phase} ${isReady(status)} ${status.progress.reason} ${status.view?.node?.state}`
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

/** Every line fits 80 columns. */
function whatToTry(lab: Lab, kubectl: string | undefined): readonly string[] {
  const { name, mac } = lab.watch.statuses()[0]?.machine ?? { name: '<name>', mac: '<mac>' as Mac }
  const commands = [
    ['./bin/kateskit machines', 'who is there'],
    ...(kubectl === undefined
      ? []
      : ([
          ['./bin/kateskit cluster', 'what they are together'],
          [`${kubectl} get nodes`, 'the cluster itself'],
        ] as const)),
    [`./bin/kateskit overlay explain ${mac}`, 'its files, by layer'],
    [`./bin/kateskit config explain ${mac}`, 'its settings, by file'],
    [`./bin/kateskit console ${name}`, 'Ctrl-] leaves it'],
    ['./bin/kateskit events --follow', 'what happens, and then:'],
    ['echo hello > profiles/roles/worker/root/etc/motd', 'reaches it at once'],
    ['sudo npm start -- --interface eth0', 'a real LAN, not this one'],
  ] as const
  return [
    'Every machine has arrived. What to try, in another terminal:',
    ...commands.map(([command, what]) => `  ${command.padEnd(COMMAND_COLUMNS)}${what}`),
    'Ctrl-C stops the lab and leaves nothing behind.',
  ]
}

const COMMAND_COLUMNS = 52
