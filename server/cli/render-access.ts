// Tokens and the audit log, as tables for people: pure text.

import { formatTable } from '#lib/text-table.ts'
import type { AuditEntry, AuditVerdict, TokenInfo } from '#machine/access-ports.ts'

import { ago, span } from './time-words.ts'

export function renderToken(info: TokenInfo, secret: string): string[] {
  return [
    `Token ${info.name} (${info.role}). It is shown this once:`,
    '',
    `  ${secret}`,
    '',
    'On another machine, with the fingerprint that kateskit ca prints here:',
    '  KATESKIT_TOKEN=<token> KATESKIT_CA=<fingerprint> kateskit --url https://<server>:8443 machines',
    "or, with the CA's certificate from http://<server>:8080/v1/ca.pem once its fingerprint was compared:",
    '  curl --cacert ca.pem -H "Authorization: Bearer <token>" https://<server>:8443/api/v1/machines',
  ]
}

export function renderTokens(tokens: readonly TokenInfo[], nowMs: number): string[] {
  if (tokens.length === 0) return ['There is no token; kateskit token new <name> makes one.']
  return formatTable(
    ['ID', 'NAME', 'ROLE', 'MADE', 'LAST USE', 'STATE'],
    tokens.map((token) => [
      token.id,
      token.name,
      token.role,
      ago(nowMs - token.createdMs),
      token.lastUsedMs === undefined ? 'never' : ago(nowMs - token.lastUsedMs),
      stateOf(token, nowMs),
    ]),
  )
}

function stateOf({ revokedMs, expiresMs }: TokenInfo, nowMs: number): string {
  if (revokedMs !== undefined) return `revoked ${ago(nowMs - revokedMs)}`
  if (expiresMs === undefined) return 'counts'
  return expiresMs <= nowMs ? `ended ${ago(nowMs - expiresMs)}` : `ends in ${span(expiresMs - nowMs)}`
}

export function renderAudit(entries: readonly AuditEntry[]): string[] {
  if (entries.length === 0) return ['Nothing was done yet.']
  return formatTable(
    ['ID', 'TIME', 'WHO', 'WHAT', 'OF', 'OUTCOME', 'DETAIL'],
    entries.map(({ id, atMs, actor, action, target, outcome, detail }) => [
      String(id),
      new Date(atMs).toISOString().replace('T', ' ').slice(0, 19),
      ...[actor, action, target === '' ? '-' : target, outcome, detail],
    ]),
  )
}

export function renderVerdict(
  { entries, head, problem, rememberedId }: AuditVerdict,
  remembered: string | undefined,
): string[] {
  const lines = [`${entries} entries`, `head  ${head}`]
  if (problem !== undefined) return [...lines, `The first that is wrong: ${problem.id}`]
  if (rememberedId !== undefined) return [...lines, `Whole; the remembered head is entry ${rememberedId}.`]
  if (remembered !== undefined) return lines
  return [
    ...lines,
    'Whole as far as it goes. To see later whether its end was cut off, keep the head on another machine:',
    'kateskit audit verify --head <hash>',
  ]
}
