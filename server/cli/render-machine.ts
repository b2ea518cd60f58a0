// Everything the server knows of one machine, and what its next netboot would do: pure text.

import { describeBytes } from '#machine/amounts.ts'
import type { Disk, Slot } from '#machine/machine.ts'
import type { MachineView, PlanView } from '#machine/ports.ts'

import { describeAttempt } from './render-identities.ts'
import { ago, span } from './time-words.ts'

/** Each line `[name, value]`; a name that is empty goes on with what is above. */
type Fields = readonly (readonly [string, string])[]

const NAME_WIDTH = 11

export function renderMachine(machine: MachineView, nowMs: number): string[] {
  return [
    `${machine.mac}  ${machine.hostname}`,
    ...toLines([
      ...profileFields(machine),
      ...stateFields(machine, nowMs),
      ...identityFields(machine, nowMs),
      ...systemFields(machine),
      ...slotFields(machine),
      ...listFields('Drift', machine.drift?.length === 0 ? ['none'] : machine.drift),
      ...powerwashFields(machine, nowMs),
      ...listFields('Disks', machine.disks?.flatMap(diskLines)),
    ]),
  ]
}

/** `name` says whose plan it is. */
export function renderPlan(name: string, { plan, lines, disks }: PlanView): string[] {
  const reported = disks.length === 0 ? [] : ['', 'Disks, as it reported them last:']
  return [
    `The next netboot of ${name}: ${plan}`,
    ...lines.map((line) => `  ${line}`),
    ...reported,
    ...disks.flatMap(diskLines).map((line) => `  ${line}`),
  ]
}

function profileFields({ role, channel, pin }: MachineView): Fields {
  return [
    ['Role', role ?? 'none: kateskit assign <machine> <role>'],
    ['Channel', pin === undefined ? channel : `${channel}, but pinned to ${pin}`],
  ]
}

function stateFields(machine: MachineView, nowMs: number): Fields {
  const { state, stateSinceMs, lastCheckInMs, firmware, address, uuid } = machine
  const checkIn =
    lastCheckInMs === undefined ? 'never checked in' : `checked in ${ago(nowMs - lastCheckInMs)}`
  return [
    ['State', `${state} for ${span(nowMs - stateSinceMs)}, ${checkIn}`],
    ...listFields('Reason', machine.reason === undefined ? undefined : [machine.reason]),
    ...listFields('Checks', machine.checks === undefined ? undefined : [machine.checks]),
    ...listFields('Reboot', machine.rebootReasons.length === 0 ? undefined : machine.rebootReasons),
    ...nodeFields(machine),
    ['Address', address ?? '-'],
    ['Firmware', firmware ?? '-'],
    ...listFields('UUID', uuid === undefined ? undefined : [uuid]),
  ]
}

function nodeFields({ node }: MachineView): Fields {
  if (node === undefined) return []
  const { role, state, version, reason } = node
  const what = [role, state, ...(version === undefined ? [] : [version])].join(', ')
  return listFields('Node', [what, ...(reason === undefined || state === 'ready' ? [] : [reason])])
}

function identityFields({ mac, identity, attempts = [] }: MachineView, nowMs: number): Fields {
  const known =
    identity === undefined
      ? 'it has not proved who it is'
      : `${identity.tier} by ${identity.by}, ${ago(nowMs - identity.sinceMs)}`
  const others = identity?.macs.filter((each) => each !== mac) ?? []
  return [
    ['Identity', known],
    ...listFields('Key', identity === undefined ? undefined : [identity.keySha256]),
    ...listFields('Other MACs', others),
    ...listFields('Waiting', attempts.map(describeAttempt)),
  ]
}

function systemFields({ imageVersion, wantedImage, bundleDigest, wantedBundle }: MachineView): Fields {
  return [
    ['Image', versus(imageVersion, wantedImage)],
    ['Bundle', versus(bundleDigest, wantedBundle)],
  ]
}

/** What it has, and what it should have where that is another. */
function versus(has: string | undefined, wants: string | undefined): string {
  if (wants === undefined || wants === has) return has ?? '-'
  return `${has ?? '-'} → ${wants}`
}

function slotFields({ slots, slot, isInstalled }: MachineView): Fields {
  if (slots === undefined) return [['Slots', isInstalled === false ? 'its disk is being made new' : 'none']]
  return (['a', 'b'] as const).flatMap((name) => {
    const isRunning = slot === name ? ', running' : ''
    const { reason } = slots[name]
    return [
      [`Slot ${name}`, `${describeSlot(slots[name])}${isRunning}`] as const,
      ...(reason === undefined ? [] : [['', reason] as const]),
    ]
  })
}

function describeSlot({ state, image, bundle, tries }: Slot): string {
  return [
    state,
    ...(tries === undefined ? [] : [`${tries} tries left`]),
    ...(image === undefined ? [] : [`image ${image}`]),
    ...(bundle === undefined ? [] : [`bundle ${bundle.slice(0, 12)}`]),
  ].join(', ')
}

function powerwashFields({ powerwash }: MachineView, nowMs: number): Fields {
  if (powerwash === undefined) return []
  const persistence = powerwash.persistence === 'keep' ? 'persistence is kept' : 'persistence is wiped too'
  return [['Powerwash', `asked for ${ago(nowMs - powerwash.requestedMs)}, ${persistence}`]]
}

function diskLines(disk: Disk): string[] {
  const words = [
    disk.name,
    describeBytes(disk.sizeBytes),
    disk.transport,
    ...(disk.removable ? ['removable'] : []),
    ...(disk.model === undefined ? [] : [disk.model]),
    ...(disk.serial === undefined ? [] : [`serial ${disk.serial}`]),
    ...(disk.wwn === undefined ? [] : [`wwn ${disk.wwn}`]),
    disk.table ?? 'no partition table',
  ]
  const contents = disk.contents.map(({ where, label, type }) =>
    ['  ', where, label, type].filter((word) => word !== undefined).join(' '),
  )
  return [words.join('  '), ...contents]
}

function listFields(name: string, values: readonly string[] | undefined): Fields {
  return (values ?? []).map((value, index) => [index === 0 ? name : '', value] as const)
}

function toLines(fields: Fields): string[] {
  return fields.map(([name, value]) => `${name.padEnd(NAME_WIDTH)}${value}`.trimEnd())
}
