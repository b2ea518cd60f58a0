// The commands that ask a running server, or tell it one thing.

import type { Command } from 'commander'

import { KitError } from '#lib/errors.ts'
import type { JsonHttp } from '#lib/json-http.ts'
import { findMac, type Mac, macToPath } from '#lib/mac.ts'
import type { Event } from '#machine/event.ts'
import type {
  ExplainedFile,
  ExplainedValue,
  Lease,
  MachineView,
  ProfileProblem,
  TokenInfo,
} from '#machine/ports.ts'

import { type CliIo, printJson, printLines } from './cli-io.ts'
import { connect } from './connect.ts'
import {
  renderEvent,
  renderLeases,
  renderMachines,
  renderOverlay,
  renderToken,
  renderValues,
} from './render.ts'

interface AnswerOptions {
  readonly json?: boolean
}

interface EventOptions extends AnswerOptions {
  readonly follow?: boolean
  readonly limit: string
}

/** The shapes are the API's own (docs/ports-and-endpoints.md): server and command line are one program. */
interface Answers {
  readonly machines: { readonly machines: readonly MachineView[] }
  readonly leases: { readonly leases: readonly Lease[] }
  readonly events: { readonly events: readonly Event[] }
  readonly values: {
    readonly values: readonly ExplainedValue[]
    readonly problems: readonly ProfileProblem[]
  }
  readonly overlay: { readonly digest: string; readonly files: readonly ExplainedFile[] }
  readonly token: { readonly info: TokenInfo; readonly secret: string }
}

const JSON_OPTION = ['--json', 'print JSON instead of a table'] as const

export function addQueryCommands(program: Command, io: CliIo): void {
  const server = () => connect(io, program.opts())
  addMachineCommands(program, io, server)
  addEventsCommand(program, io, server)
  addExplainCommands(program, io, server)
  program
    .command('leases')
    .description('the addresses that DHCP has leased')
    .option(...JSON_OPTION)
    .action(async (options: AnswerOptions) => {
      const answer = (await (await server()).request('GET', '/api/v1/leases')) as Answers['leases']
      show(io, options, answer, () => renderLeases(answer.leases, Date.now()))
    })
  program
    .command('token')
    .description('API tokens')
    .command('new <name>')
    .description('make an admin token; it is shown once')
    .option(...JSON_OPTION)
    .action(async (name: string, options: AnswerOptions) => {
      const answer = await (await server()).request('POST', '/api/v1/tokens', { name })
      const { info, secret } = answer as Answers['token']
      show(io, options, answer, () => renderToken(info, secret))
    })
}

type Server = () => Promise<JsonHttp>

function addMachineCommands(program: Command, io: CliIo, server: Server): void {
  program
    .command('machines')
    .description('every machine that was seen, and how it is')
    .option(...JSON_OPTION)
    .action(async (options: AnswerOptions) => {
      const answer = (await (await server()).request('GET', '/api/v1/machines')) as Answers['machines']
      show(io, options, answer, () => renderMachines(answer.machines, Date.now()))
    })
  program
    .command('assign <mac> <role>')
    .description('give a machine a role; it counts at its next netboot')
    .action(async (text: string, role: string) => {
      const mac = readMac(text)
      await (await server()).request('PUT', `/api/v1/machines/${macToPath(mac)}/role`, { role })
      io.stdout.write(`${mac} is now ${role}: its next boot from the network makes it so\n`)
    })
}

function addEventsCommand(program: Command, io: CliIo, server: Server): void {
  program
    .command('events [mac]')
    .description('what has happened, of one machine or of all')
    .option('-f, --follow', 'go on with what happens from now on')
    .option('-n, --limit <count>', 'how many of the past', '50')
    .option(...JSON_OPTION)
    .action(async (text: string | undefined, options: EventOptions) => {
      const http = await server()
      const query = new URLSearchParams({ limit: options.limit })
      if (text !== undefined) query.set('mac', readMac(text))
      const past = (await http.request('GET', `/api/v1/events?${query}`)) as Answers['events']
      const print = (event: Event) => show(io, options, event, () => renderEvent(event))
      past.events.forEach(print)
      if (options.follow !== true) return
      const lastEventId = String(past.events.at(-1)?.id ?? 0)
      for await (const message of http.stream(`/api/v1/events?${query}`, {
        lastEventId,
        signal: io.signal,
      })) {
        print(JSON.parse(message.data) as Event)
      }
    })
}

function addExplainCommands(program: Command, io: CliIo, server: Server): void {
  program
    .command('config')
    .description('settings')
    .command('explain [mac]')
    .description('each setting of the server, or of a machine, its value and which file set it')
    .option(...JSON_OPTION)
    .action(async (text: string | undefined, options: AnswerOptions) => {
      const path =
        text === undefined ? '/api/v1/config' : `/api/v1/machines/${macToPath(readMac(text))}/config`
      const answer = (await (await server()).request('GET', path)) as Answers['values']
      show(io, options, answer, () => renderValues(answer.values, answer.problems))
    })
  program
    .command('overlay')
    .description('overlay bundles')
    .command('explain <mac>')
    .description('each file that is laid over the root of a machine, and which layer it comes from')
    .option(...JSON_OPTION)
    .action(async (text: string, options: AnswerOptions) => {
      const path = `/api/v1/machines/${macToPath(readMac(text))}/overlay`
      const answer = (await (await server()).request('GET', path)) as Answers['overlay']
      show(io, options, answer, () => renderOverlay(answer.digest, answer.files))
    })
}

function show(io: CliIo, options: AnswerOptions, answer: unknown, lines: () => readonly string[]): void {
  if (options.json === true) printJson(io.stdout, answer)
  else printLines(io.stdout, lines())
}

function readMac(text: string): Mac {
  const mac = findMac(text)
  if (mac !== undefined) return mac
  throw new KitError('invalid-input', `Cannot read a MAC address: ${JSON.stringify(text)}`, {
    fix: 'write it as 52:54:00:12:34:56; kateskit machines lists those that were seen',
  })
}
