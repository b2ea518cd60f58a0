// `kateskit secret`: encrypting what lies under secret/, and what a machine has of it. No content is ever printed.

import { join, relative, resolve } from 'node:path'

import type { Command } from 'commander'

import { loadConfig } from '#config'
import { KitError } from '#lib/errors.ts'
import type { ExplainedSecrets } from '#machine/secret-ports.ts'
import { sealFile } from '#sealing/seal-file.ts'
import { listSecretTree } from '#sealing/secret-tree.ts'
import { readKey, SECRETS_KEY_FILE } from '#sealing/secrets-key.ts'

import { type AnswerOptions, JSON_OPTION, type Server, show } from './answers.ts'
import type { CliIo } from './cli-io.ts'
import type { ConnectOptions } from './connect.ts'
import { findMachine, machinePath } from './find-machine.ts'
import { renderSecrets } from './render.ts'
import { runSecretEdit } from './secret-edit.ts'

export function addSecretCommands(program: Command, io: CliIo, server: Server): void {
  const secret = program
    .command('secret')
    .description('files that only machines get that have proved who they are')
  secret
    .command('seal [files...]')
    .description(
      'encrypt plain files in place, as <file>.age; default: all under secret/ in the profile tree',
    )
    .addHelpText(
      'after',
      '\nThe running server says what for; without one, the key file on this machine does.',
    )
    .action(async (files: readonly string[]) => {
      const { url } = program.opts<ConnectOptions>()
      await sealFiles(io, { files, findRecipient: () => findRecipient(io, server, url) })
    })
  secret
    .command('show <machine>')
    .description('which secret files a machine is given, from which layers, with which modes')
    .option(...JSON_OPTION)
    .action(async (text: string, options: AnswerOptions) => {
      const http = await server()
      const path = machinePath(await findMachine(http, text), '/secrets')
      const answer = (await http.request('GET', path)) as ExplainedSecrets
      show(io, options, answer, () => renderSecrets(answer))
    })
  secret
    .command('edit <file>')
    .description('open an encrypted file in $EDITOR, on the server itself; a file that is not there is made')
    .action((file: string) => runSecretEdit(io, file))
}

interface SealWork {
  readonly files: readonly string[]
  readonly findRecipient: () => Promise<string>
}

async function sealFiles(io: CliIo, { files, findRecipient }: SealWork): Promise<void> {
  const { values } = loadConfig({ env: io.env, cwd: io.projectFolder })
  const profiles = values['profiles/directory']
  const plain = files.length > 0 ? files.map((file) => resolve(file)) : (await listSecretTree(profiles)).plain
  if (plain.length === 0) {
    io.stdout.write(`Nothing under secret/ in ${profiles} is in plain text\n`)
    return
  }
  const recipient = await findRecipient()
  for (const file of plain) {
    io.signal.throwIfAborted()
    io.stdout.write(`${shorten(await sealFile(file, recipient))}\n`)
  }
  io.stderr.write(`Encrypted for ${recipient}; plain text that was in git, or in a backup, is there still\n`)
}

/** Whichever server would open them. Without one that runs, the one that is configured here. */
async function findRecipient(io: CliIo, server: Server, url: string | undefined): Promise<string> {
  try {
    const answer = await (await server()).request('GET', '/api/v1/secrets/recipient')
    return (answer as { readonly recipient: string }).recipient
  } catch (error) {
    if (url !== undefined || !(error instanceof KitError) || error.code !== 'unavailable') throw error
    const directory = loadConfig({ env: io.env, cwd: io.projectFolder }).values['keys/directory']
    const key = await readKey(directory)
    if (key !== undefined) return key.recipient
    const file = join(directory, SECRETS_KEY_FILE)
    throw new KitError(
      'unavailable',
      `Cannot tell what to encrypt for: no server runs here, and ${file} is not there`,
      {
        fix: 'start the server once, which makes the key, or name one that runs with --url',
      },
    )
  }
}

function shorten(file: string): string {
  const short = relative(process.cwd(), file)
  return short.startsWith('..') ? file : short
}
