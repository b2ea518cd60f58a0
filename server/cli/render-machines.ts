// Machines as a table, one line each and what is out of the ordinary below it: pure text.

import type { MachineView } from '#machine/ports.ts'

import { cut, formatFittedTable } from './fitted-table.ts'
import { describeAttempt } from './render-identities.ts'
import { plural } from './render-releases.ts'
import { ago, span } from './time-words.ts'

/** The agent of a running machine checks in every five minutes; three missed ones are news. */
const SILENT_AFTER_MS = 15 * 60_000

export const TABLE_WIDTH = 108

const HEADER: readonly string[] = [
  'MAC',
  'HOSTNAME',
  'ROLE',
  'STATE',
  'TIER',
  'A/B',
  'IMAGE',
  'CHANNEL',
  'BUNDLE',
  'SEEN',
]

/** What is least missed goes first; the whole of it is in `kateskit machines <machine>`. */
const CUTS = [
  { column: 'TIER', min: 6 },
  { column: 'ROLE', min: 6 },
  { column: 'CHANNEL', min: 7 },
  { column: 'HOSTNAME', min: 9 },
  { column: 'IMAGE', min: 14 },
  { column: 'IMAGE', min: 9 },
  { column: 'A/B', min: 9 },
  { column: 'STATE', min: 7 },
]

export function renderMachines(machines: readonly MachineView[], nowMs: number): string[] {
  if (machines.length === 0) return ['No machine has been seen yet. Let one boot from the network.']
  const rows = machines.map((machine) => [
    machine.mac,
    machine.hostname,
    machine.role ?? '-',
    machine.state,
    machine.identity?.tier ?? '-',
    slotsText(machine),
    imageText(machine),
    machine.channel,
    bundleText(machine),
    machine.lastCheckInMs === undefined ? '-' : span(nowMs - machine.lastCheckInMs),
  ])
  const table = withNodes(machines, rows)
  const [header = '', ...lines] = formatFittedTable(table.header, table.rows, {
    width: TABLE_WIDTH,
    cuts: CUTS,
  })
  const notes = machines.map((machine) =>
    notesOf(machine, nowMs).map((note) => cut(`    ${note}`, TABLE_WIDTH)),
  )
  return [header, ...lines.flatMap((line, index) => [line, ...(notes[index] ?? [])])]
}

/** Where there is a cluster, what each is in it stands beside its state. */
function withNodes(machines: readonly MachineView[], rows: readonly (readonly string[])[]) {
  if (machines.every(({ node }) => node === undefined)) return { header: HEADER, rows }
  const at = HEADER.indexOf('STATE') + 1
  return {
    header: HEADER.toSpliced(at, 0, 'NODE'),
    rows: rows.map((row, index) => row.toSpliced(at, 0, machines[index]?.node?.state ?? '-')),
  }
}

// `good*/trying`: the star marks the slot it runs from.
function slotsText({ slots, slot }: MachineView): string {
  if (slots === undefined) return '-'
  const one = (name: 'a' | 'b') => {
    const state = slots[name].state === 'empty' ? '-' : slots[name].state
    return slot === name ? `${state}*` : state
  }
  return `${one('a')}/${one('b')}`
}

/** `1.4.2 → 1.4.3`: of `1.4.2-8f2c11aa` only what tells the two apart, for two whole versions have no room. */
function imageText({ imageVersion, wantedImage }: MachineView): string {
  if (imageVersion === undefined) return '-'
  if (wantedImage === undefined || wantedImage === imageVersion) return imageVersion
  const [has, wants] = [stem(imageVersion), stem(wantedImage)]
  return has === wants ? imageVersion : `${has} → ${wants}`
}

function stem(version: string): string {
  return version.split('-')[0] ?? version
}

function bundleText({ bundleDigest, wantedBundle }: MachineView): string {
  if (bundleDigest === undefined) return '-'
  return wantedBundle === undefined || wantedBundle === bundleDigest ? 'ok' : 'old'
}

/** What a person may want to do something about. */
function notesOf(machine: MachineView, nowMs: number): string[] {
  const { state, lastCheckInMs, rebootReasons, checks, reason, powerwash, slots, drift = [] } = machine
  const silentMs = nowMs - (lastCheckInMs ?? nowMs)
  const bad = (['a', 'b'] as const).filter((name) => slots?.[name].state === 'bad')
  return [
    ...(machine.attempts ?? []).map(describeAttempt),
    ...wantedNote(machine),
    ...nodeNote(machine),
    ...(state === 'running' && silentMs > SILENT_AFTER_MS ? [`silent for ${span(silentMs)}`] : []),
    ...(rebootReasons.length > 0 ? [`needs a reboot: ${rebootReasons.join('; ')}`] : []),
    ...(drift.length > 0 ? [`drift in ${plural(drift.length, 'file')}: ${drift.join(', ')}`] : []),
    ...(checks === 'failed' ? ['its own checks failed'] : []),
    ...(reason === undefined ? [] : [reason]),
    ...bad.map(
      (name) => `slot ${name}${imageOf(slots?.[name].image)} is bad${because(slots?.[name].reason)}`,
    ),
    ...(powerwash === undefined ? [] : [`powerwash asked for ${ago(nowMs - powerwash.requestedMs)}`]),
    ...(machine.pin === undefined ? [] : [`pinned to ${machine.pin}`]),
  ]
}

function nodeNote({ node }: MachineView): string[] {
  return node?.reason === undefined || node.state === 'ready' ? [] : [`cluster: ${node.reason}`]
}

/** Where the table has no room for it. */
function wantedNote({ imageVersion, wantedImage }: MachineView): string[] {
  if (wantedImage === undefined || wantedImage === imageVersion) return []
  const isShown = imageVersion !== undefined && stem(imageVersion) !== stem(wantedImage)
  return isShown && stem(wantedImage) === wantedImage ? [] : [`→ image ${wantedImage}`]
}

const imageOf = (version: string | undefined) => (version === undefined ? '' : ` (${version})`)
const because = (reason: string | undefined) => (reason === undefined ? '' : `: ${reason}`)
