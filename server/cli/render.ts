// What the API answers, as tables for people: pure text.

import { formatTable } from '#lib/text-table.ts'
import type { Event } from '#machine/event.ts'
import type {
  ExplainedFile,
  ExplainedValue,
  Lease,
  MachineView,
  ProfileProblem,
  TokenInfo,
} from '#machine/ports.ts'

/** The agent of a running machine checks in every five minutes ; three missed ones are news. */
const SILENT_AFTER_MS = 15 * 60_000

/** Enough of a sha256 to tell two bundles apart. */
const DIGEST_SHOWN = 12

export function renderMachines(machines: readonly MachineView[], nowMs: number): string[] {
  if (machines.length === 0) return ['No machine has been seen yet. Let one boot from the network.']
  const header = ['MAC', 'HOSTNAME', 'ROLE', 'STATE', 'SINCE', 'ADDRESS', 'IMAGE', 'BUNDLE']
  return formatTable(
    header,
    machines.map((machine) => [
      machine.mac,
      machine.hostname,
      machine.role ?? '-',
      stateText(machine, nowMs),
      ago(nowMs - machine.stateSinceMs),
      machine.address ?? '-',
      machine.imageVersion ?? '-',
      bundleText(machine),
    ]),
  )
}

/** What it said last, and what follows from that for a person. */
function stateText({ state, rebootReasons, lastCheckInMs }: MachineView, nowMs: number): string {
  const silentMs = nowMs - (lastCheckInMs ?? nowMs)
  if (state === 'running' && silentMs > SILENT_AFTER_MS) return `running, silent for ${span(silentMs)}`
  return rebootReasons.length > 0 ? `${state}, needs a reboot` : state
}

function bundleText({ bundleDigest, wantedBundle }: MachineView): string {
  if (bundleDigest === undefined) return '-'
  const shown = bundleDigest.slice(0, DIGEST_SHOWN)
  return wantedBundle === undefined || wantedBundle === bundleDigest ? shown : `${shown} (outdated)`
}

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

/** One line, and the log of a failed step below it. */
export function renderEvent(event: Event): string[] {
  const time = new Date(event.atMs).toISOString().replace('T', ' ').slice(0, 19)
  const line = `${time}  ${(event.mac ?? '-').padEnd(17)}  ${event.kind.padEnd(18)}  ${event.message}`
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
  const table = formatTable(
    ['MODE', 'OWNER', 'PATH', 'FROM', 'HIDES'],
    files.map((file) => [
      file.kind === 'delete' ? 'deleted' : `${KIND_LETTER[file.kind]}${file.mode}`,
      `${file.uid}:${file.gid}`,
      file.path,
      file.layer,
      file.hides.join(', '),
    ]),
  )
  return [...table, '', `Bundle ${digest}`]
}

const KIND_LETTER = { file: '-', directory: 'd', symlink: 'l' } as const

export function renderToken(info: TokenInfo, secret: string): string[] {
  return [
    `Token ${info.name} (${info.role}). It is shown this once:`,
    '',
    `  ${secret}`,
    '',
    'Use it as: curl -H "Authorization: Bearer <token>" http://<server>:8080/api/v1/machines',
    'or with this command: KATESKIT_TOKEN=<token> kateskit --url http://<server>:8080 machines',
  ]
}

function ago(milliseconds: number): string {
  return `${span(milliseconds)} ago`
}

function span(milliseconds: number): string {
  const seconds = Math.max(0, Math.round(milliseconds / 1000))
  if (seconds < 120) return `${seconds} s`
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`
  if (seconds < 172_800) return `${Math.round(seconds / 3600)} h`
  return `${Math.round(seconds / 86_400)} d`
}
