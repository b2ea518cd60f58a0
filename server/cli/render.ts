// What the API answers, as tables for people: pure text.

import { formatTable } from '#lib/text-table.ts'
import { EVENT_KINDS, type Event } from '#machine/event.ts'
import type { Lease } from '#machine/lease-ports.ts'
import type { ExplainedFile, ExplainedValue, ProfileProblem } from '#machine/ports.ts'
import type { ExplainedSecrets } from '#machine/secret-ports.ts'

import { ago, span } from './time-words.ts'

export function renderLeases(leases: readonly Lease[], nowMs: number): string[] {
  if (leases.length === 0) return ['No address has been leased. In proxy mode the router leases them.']
  return formatTable(
    ['ADDRESS', 'MAC', 'HOSTNAME', 'STATE', 'ENDS'],
    leases.map((lease) => {
      const leftMs = lease.expiresMs - nowMs
      const state = lease.kind === 'declined' ? 'declined' : leftMs > 0 ? 'leased' : 'expired'
      const ends = leftMs > 0 ? `in ${span(leftMs)}` : ago(-leftMs)
      return [lease.ip, lease.mac, lease.hostname ?? '-', state, ends]
    }),
  )
}

const KIND_WIDTH = Math.max(...Object.keys(EVENT_KINDS).map((kind) => kind.length))

/** One line, and the log of a failed step below it. */
export function renderEvent(event: Event): string[] {
  const time = new Date(event.atMs).toISOString().replace('T', ' ').slice(0, 19)
  const line = `${time}  ${(event.mac ?? '-').padEnd(17)}  ${event.kind.padEnd(KIND_WIDTH)}  ${event.message}`
  const log = event.data['log']
  return log === undefined
    ? [line]
    : [
        line,
        ...String(log)
          .trimEnd()
          .split('\n')
          .map((text) => `    ${text}`),
      ]
}

export function renderValues(
  values: readonly ExplainedValue[],
  problems: readonly ProfileProblem[],
): string[] {
  const oneLine = (value: string) => (value === '' ? '-' : value.replaceAll('\n', ' '))
  const table = formatTable(
    ['KEY', 'VALUE', 'SET BY'],
    values.map(({ key, value, source }) => [key, oneLine(value), source]),
  )
  return problems.length === 0 ? table : [...table, '', ...renderProblems(problems)]
}

function renderProblems(problems: readonly ProfileProblem[]): string[] {
  return ['Problems:', ...problems.map(({ layer, file, message }) => `  ${layer}: ${file}: ${message}`)]
}

export function renderOverlay(digest: string, files: readonly ExplainedFile[]): string[] {
  if (files.length === 0) return [`Bundle ${digest} is empty.`]
  return [...renderFiles(files), '', `Bundle ${digest}`]
}

export function renderSecrets({ files, problems }: ExplainedSecrets): string[] {
  const table = files.length === 0 ? ['No secret files.'] : renderFiles(files)
  return problems.length === 0 ? table : [...table, '', ...renderProblems(problems)]
}

function renderFiles(files: readonly ExplainedFile[]): string[] {
  return formatTable(
    ['MODE', 'OWNER', 'PATH', 'FROM', 'HIDES'],
    files.map((file) => [
      file.kind === 'delete' ? 'deleted' : `${KIND_LETTER[file.kind]}${file.mode}`,
      `${file.uid}:${file.gid}`,
      file.path,
      file.layer,
      file.hides.join(', '),
    ]),
  )
}

const KIND_LETTER = { file: '-', directory: 'd', symlink: 'l' } as const
