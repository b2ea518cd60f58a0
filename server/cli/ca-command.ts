// `kateskit ca`: what everybody compares who is to believe this server.

import type { Command } from 'commander'

import type { CaView } from '#machine/tls-ports.ts'

import { type AnswerOptions, JSON_OPTION, type Server, show } from './answers.ts'
import type { CliIo } from './cli-io.ts'

export function addCaCommand(program: Command, io: CliIo, server: Server): void {
  program
    .command('ca')
    .description("the fingerprint of the server's CA, and where its certificate lies on the server")
    .option(...JSON_OPTION)
    .action(async (options: AnswerOptions) => {
      const ca = (await (await server()).request('GET', '/api/v1/ca')) as CaView
      show(io, options, ca, () => [`fingerprint  ${ca.fingerprint}`, `certificate  ${ca.file}`])
    })
}
