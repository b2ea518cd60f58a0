// The commands that ask a running server, or tell it one thing.

import type { Command } from 'commander'

import type { Event } from '#machine/event.ts'
import type { Lease } from '#machine/lease-ports.ts'
import type { ExplainedFile, ExplainedValue, ProfileProblem } from '#machine/ports.ts'

import { type AnswerOptions, JSON_OPTION, type Server, show } from './answers.ts'
import type { CliIo } from './cli-io.ts'
import { findMachine, machinePath } from './find-machine.ts'
import { renderEvent, renderLeases, renderOverlay, renderValues } from './render.ts'

interface EventOptions extends AnswerOptions {
  readonly follow?: boolean
  readonly limit: string
}

/** The shapes are the API's own (docs/ports-and-endpoints.md): server and command line are one program. */
interface Answers {
  readonly leases: { readonly leases: readonly Lease[] }
  readonly events: { readonly events: readonly Event[] }
  readonly values: {
    readonly values: readonly ExplainedValue[]
    readonly problems: readonly ProfileProblem[]
  }
  readonly overlay: { readonly digest: string; readonly files: readonly ExplainedFile[] }
}

export function addQueryCommands(program: Command, io: CliIo, server: Server): void {
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
}

function addEventsCommand(program: Command, io: CliIo, server: Server): void {
  program
    .command('events [machine]')
    .description('what has happened, of one machine or of all')
    .option('-f, --follow', 'go on with what happens from now on')
    .option('-n, --limit <count>', 'how many of the past', '50')
    .option(...JSON_OPTION)
    .action(async (text: string | undefined, options: EventOptions) => {
      const http = await server()
      const query = new URLSearchParams({ limit: options.limit })
      if (text !== undefined) query.set('mac', await findMachine(http, text))
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
    .command('explain [machine]')
    .description('each setting of the server, or of a machine, its value and which file set it')
    .option(...JSON_OPTION)
    .action(async (text: string | undefined, options: AnswerOptions) => {
      const http = await server()
      const path =
        text === undefined ? '/api/v1/config' : machinePath(await findMachine(http, text), '/config')
      const answer = (await http.request('GET', path)) as Answers['values']
      show(io, options, answer, () => renderValues(answer.values, answer.problems))
    })
  program
    .command('overlay')
    .description('overlay bundles')
    .command('explain <machine>')
    .description('each file that is laid over the root of a machine, and which layer it comes from')
    .option(...JSON_OPTION)
    .action(async (text: string, options: AnswerOptions) => {
      const http = await server()
      const path = machinePath(await findMachine(http, text), '/overlay')
      const answer = (await http.request('GET', path)) as Answers['overlay']
      show(io, options, answer, () => renderOverlay(answer.digest, answer.files))
    })
}
