// The commands about which machine is which: taking machines in, approving TPMs, forgetting.

import type { Command } from 'commander'

import type { Approval, Identity } from '#machine/identity.ts'

import { type AnswerOptions, JSON_OPTION, type Server, show } from './answers.ts'
import type { CliIo } from './cli-io.ts'
import { findMachine, machinePath } from './find-machine.ts'
import { MACHINE_HELP } from './machine-commands.ts'
import { type IdentitiesAnswer, renderIdentities } from './render-identities.ts'

const SHA256 = /^[0-9a-f]{64}$/i

export function addIdentityCommands(program: Command, io: CliIo, server: Server): void {
  program
    .command('identities')
    .description('which machines have proved who they are, and which wait for a person')
    .option(...JSON_OPTION)
    .action(async (options: AnswerOptions) => {
      const answer = (await (await server()).request('GET', '/api/v1/identities')) as IdentitiesAnswer
      show(io, options, answer, () => renderIdentities(answer, Date.now()))
    })
  program
    .command('pair <machine> <code>')
    .description('take a machine in whose console shows the code')
    .option('--replace', 'the machine is known by another key, which was lost: it counts no more')
    .option(...JSON_OPTION)
    .addHelpText('after', `\n${MACHINE_HELP} Read the code on the machine's own console, nowhere else.`)
    .action(async (text: string, code: string, options: AnswerOptions & { replace?: boolean }) => {
      const http = await server()
      const path = machinePath(await findMachine(http, text), '/pair')
      const body = { code, replace: options.replace === true }
      const identity = (await http.request('POST', path, body)) as Identity
      show(io, options, identity, () => [`${identity.mac} is taken in, ${identity.tier}`])
    })
  addApproveCommand(program, io, server)
  program
    .command('forget <machine>')
    .description('forget the key of a machine: it must prove anew who it is')
    .addHelpText('after', `\n${MACHINE_HELP}`)
    .action(async (text: string) => {
      const http = await server()
      const mac = await findMachine(http, text)
      await http.request('DELETE', machinePath(mac, '/identity'))
      io.stdout.write(`The key of ${mac} is forgotten: it must prove anew who it is\n`)
    })
}

function addApproveCommand(program: Command, io: CliIo, server: Server): void {
  program
    .command('approve <tpm>')
    .description('approve a TPM: its machine needs no code')
    .option('--withdraw', 'take it back; a machine that has it is tpm-first-use from then on')
    .option(...JSON_OPTION)
    .addHelpText(
      'after',
      '\nA TPM is named by the sha256 of its endorsement key, or by the machine that has shown it.',
    )
    .action(async (text: string, options: AnswerOptions & { withdraw?: boolean }) => {
      const http = await server()
      const ek = SHA256.test(text) ? text.toLowerCase() : undefined
      if (options.withdraw === true) {
        await http.request('DELETE', `/api/v1/approvals/${encodeURIComponent(ek ?? text)}`)
        io.stdout.write(`The TPM ${ek} is approved no more\n`)
        return
      }
      const body = ek === undefined ? { mac: await findMachine(http, text) } : { ekSha256: ek }
      const approval = (await http.request('POST', '/api/v1/approvals', body)) as Approval
      show(io, options, approval, () => [`The TPM ${approval.ekSha256} is approved`])
    })
}
