// The commands about machines: what there is, what becomes of one, and making it new.

import type { Command } from 'commander'

import { KitError } from '#lib/errors.ts'
import type { MachineView, PlanView } from '#machine/ports.ts'

import { type AnswerOptions, JSON_OPTION, type Server, show } from './answers.ts'
import { askYesNo } from './ask.ts'
import { type CliIo, printLines } from './cli-io.ts'
import { findMachine, listMachines, machinePath } from './find-machine.ts'
import { renderMachine, renderPlan } from './render-machine.ts'
import { renderMachines } from './render-machines.ts'
import { renderPowerwash } from './render-releases.ts'

interface PowerwashOptions {
  readonly persistence?: boolean
  readonly cancel?: boolean
  readonly yes?: boolean
}

export const MACHINE_HELP = 'A machine is named by its MAC, or by its host name.'

export function addMachineCommands(program: Command, io: CliIo, server: Server): void {
  program
    .command('machines [machine]')
    .description('every machine that was seen and how it is, or everything about one')
    .option(...JSON_OPTION)
    .addHelpText(
      'after',
      `\n${MACHINE_HELP} A/B are the slots of its disk; the star marks the one it runs from.`,
    )
    .action((text: string | undefined, options: AnswerOptions) => runMachines(io, server, { text, options }))
  program
    .command('assign <machine> <role>')
    .description('give a machine a role; it counts at its next netboot')
    .action(async (text: string, role: string) => {
      const http = await server()
      const mac = await findMachine(http, text)
      await http.request('PUT', machinePath(mac, '/role'), { role })
      io.stdout.write(`${mac} is now ${role}: its next boot from the network makes it so\n`)
    })
  program
    .command('plan <machine>')
    .description('what its next netboot would write where, what is kept and what is lost')
    .option(...JSON_OPTION)
    .action(async (text: string, options: AnswerOptions) => {
      const http = await server()
      const mac = await findMachine(http, text)
      const plan = (await http.request('GET', machinePath(mac, '/plan'))) as PlanView
      // A machine that has only a folder yet has a plan, but was never seen.
      const hostname = (await listMachines(http)).find((machine) => machine.mac === mac)?.hostname
      const name = hostname === undefined ? mac : `${mac} (${hostname})`
      show(io, options, plan, () => renderPlan(name, plan))
    })
  addPowerwashCommand(program, io, server)
}

function addPowerwashCommand(program: Command, io: CliIo, server: Server): void {
  program
    .command('powerwash <machine>')
    .description('make a machine new; what is on its persistence partition is kept')
    .option('--persistence', 'wipe persistence too: etcd, volumes, machine id, ssh host keys')
    .option('--cancel', 'take it back, as long as it has not begun')
    .option('-y, --yes', 'do not ask')
    .addHelpText('after', `\n${MACHINE_HELP}`)
    .action(async (text: string, options: PowerwashOptions) => {
      const http = await server()
      const path = machinePath(await findMachine(http, text))
      const machine = (await http.request('GET', path)) as MachineView
      if (options.cancel === true) {
        await http.request('DELETE', `${path}/powerwash`)
        io.stdout.write(`The powerwash of ${machine.mac} (${machine.hostname}) is taken back\n`)
        return
      }
      printLines(io.stdout, renderPowerwash(machine, options.persistence === true ? 'wipe' : 'keep'))
      if (!(await isAgreed(io, options))) {
        io.stdout.write('Nothing was done\n')
        return
      }
      await http.request('POST', `${path}/powerwash`, { persistence: options.persistence === true })
      printLines(io.stdout, [
        `Asked for. kateskit events --follow ${machine.hostname} shows how it goes;`,
        `kateskit powerwash ${machine.hostname} --cancel takes it back until it has begun`,
      ])
    })
}

/** Without a terminal there is nobody to ask: what can be had back goes on, what cannot needs the option. */
async function isAgreed(io: CliIo, { yes, persistence }: PowerwashOptions): Promise<boolean> {
  if (yes === true) return true
  if (io.stdin.isTTY === true) return askYesNo(io, 'Go on?')
  if (persistence !== true) return true
  throw new KitError('invalid-input', 'Cannot ask whether persistence may be wiped: this is no terminal', {
    fix: 'add --yes to wipe it',
  })
}

async function runMachines(
  io: CliIo,
  server: Server,
  { text, options }: { text: string | undefined; options: AnswerOptions },
): Promise<void> {
  const http = await server()
  if (text === undefined) {
    const machines = await listMachines(http)
    show(io, options, { machines }, () => renderMachines(machines, Date.now()))
    return
  }
  const mac = await findMachine(http, text)
  const machine = (await http.request('GET', machinePath(mac))) as MachineView
  show(io, options, machine, () => renderMachine(machine, Date.now()))
}
