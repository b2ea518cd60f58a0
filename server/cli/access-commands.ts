// The commands about people and programs: their tokens, and the log of what they did.

import { type Command, Option } from 'commander'

import { KitError } from '#lib/errors.ts'
import {
  type AuditEntry,
  type AuditVerdict,
  TOKEN_ROLES,
  type TokenInfo,
  type TokenRole,
} from '#machine/access-ports.ts'

import { type AnswerOptions, JSON_OPTION, type Server, show } from './answers.ts'
import type { CliIo } from './cli-io.ts'
import { renderAudit, renderToken, renderTokens, renderVerdict } from './render-access.ts'

interface NewTokenOptions extends AnswerOptions {
  readonly role: TokenRole
  readonly days?: string
}

interface VerifyOptions extends AnswerOptions {
  readonly head?: string
}

/** Every entry is read and hashed. */
const VERIFY_TIMEOUT_MS = 600_000

export function addAccessCommands(program: Command, io: CliIo, server: Server): void {
  addTokenCommands(program, io, server)
  addAuditCommands(program, io, server)
}

function addTokenCommands(program: Command, io: CliIo, server: Server): void {
  const token = program.command('token').description('API tokens')
  token
    .command('new <name>')
    .description('make a token; it is shown once')
    .addOption(
      new Option(
        '--role <role>',
        'viewer reads; operator also changes machines, images and rollouts; admin all',
      )
        .choices(TOKEN_ROLES)
        .default('viewer'),
    )
    .option('--days <count>', 'how long it counts (default: until it is revoked)')
    .option(...JSON_OPTION)
    .action(async (name: string, { role, days, ...options }: NewTokenOptions) => {
      const body = { name, role, ...(days !== undefined && { days: Number(days) }) }
      const answer = await (await server()).request('POST', '/api/v1/tokens', body)
      const { info, secret } = answer as { info: TokenInfo; secret: string }
      show(io, options, answer, () => renderToken(info, secret))
    })
  token
    .command('list')
    .description('every token: what it may, when it was used last, and whether it still counts')
    .option(...JSON_OPTION)
    .action(async (options: AnswerOptions) => {
      const answer = await (await server()).request('GET', '/api/v1/tokens')
      const { tokens } = answer as { tokens: readonly TokenInfo[] }
      show(io, options, answer, () => renderTokens(tokens, Date.now()))
    })
  token
    .command('revoke <id>')
    .description('refuse a token from now on; token list shows the ids')
    .action(async (id: string) => {
      const path = `/api/v1/tokens/${encodeURIComponent(id)}`
      const { name } = (await (await server()).request('DELETE', path)) as TokenInfo
      io.stdout.write(`${name} (${id}) is revoked\n`)
    })
}

function addAuditCommands(program: Command, io: CliIo, server: Server): void {
  program
    .command('audit')
    .description('who did what, and how it ended')
    .option('-n, --limit <count>', 'how many of the newest', '50')
    .option(...JSON_OPTION)
    .action(async ({ limit, ...options }: AnswerOptions & { limit: string }) => {
      const query = new URLSearchParams({ limit })
      const answer = await (await server()).request('GET', `/api/v1/audit?${query}`)
      const { entries } = answer as { entries: readonly AuditEntry[] }
      show(io, options, answer, () => renderAudit(entries))
    })
    .command('verify')
    .description('read the whole log: whether an entry was changed or taken out')
    .option('--head <hash>', 'a head that was printed earlier: whether the log still has that entry')
    .option(...JSON_OPTION)
    .action(async ({ head }: VerifyOptions, command: Command) => {
      const options: AnswerOptions = command.optsWithGlobals() // commander gives --json to audit itself
      const query = head === undefined ? '' : `?${new URLSearchParams({ head })}`
      const http = await server()
      const answer = await http.request('GET', `/api/v1/audit/verify${query}`, undefined, {
        timeoutMs: VERIFY_TIMEOUT_MS,
      })
      const verdict = answer as AuditVerdict
      show(io, options, answer, () => renderVerdict(verdict, head))
      requireWhole(verdict, head)
    })
}

/** Throws KitError `conflict`, so that scripts see it. */
function requireWhole({ problem, rememberedId }: AuditVerdict, head: string | undefined): void {
  const fix = 'compare the database with a copy from before; entries before the one named are as they were'
  if (problem !== undefined) {
    throw new KitError('conflict', `Cannot believe the audit log: ${problem.message}`, { fix })
  }
  if (head !== undefined && rememberedId === undefined) {
    const message =
      'Cannot believe the audit log: no entry has the remembered head; its end was cut off or rewritten'
    throw new KitError('conflict', message, { fix: 'compare the database with a copy from before' })
  }
}
