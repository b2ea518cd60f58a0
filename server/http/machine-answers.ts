// What machines are answered: `name value` lines, for they are read by shell scripts (docs/ports-and-endpoints.md).

import { createHash } from 'node:crypto'

import type { DiskPlan, Target } from '#machine/ports.ts'

import { plain } from './machine-texts.ts'

const TAG_DIGITS = 16

/** Everything a machine is told but the tag and the time. */
function targetLines(target: Target): string[] {
  return toLines([
    ['image', target.imageVersion],
    ['bundle', target.bundleDigest],
    ['stage', yesOrNo(target.mayStage)],
    ['reboot', yesOrNo(target.mayReboot)],
    ['good', yesOrNo(target.isGood)],
    ['powerwash', yesOrNo(target.powerwash)],
    ...(target.secretsDigest === undefined ? [] : [['secrets', target.secretsDigest]]),
    ['secrets-kept', target.secretsKept],
    ['rate', `${target.rateKiBps}`],
    ['kubernetes', target.kubernetes],
    ['etcd-snapshot-every', `${target.snapshotSeconds}`],
    ['registry-mirror', yesOrNo(target.isMirrored)],
    ['arguments', target.arguments],
  ])
}

/** The same for the same target, in every run of the server: a machine that has it need not be answered yet. */
export function targetTag(target: Target): string {
  const digest = createHash('sha256').update(targetLines(target).join('\n'))
  return digest.digest('hex').slice(0, TAG_DIGITS)
}

export function formatTarget(target: Target, nowMs: number): string {
  const time = `time ${Math.floor(nowMs / 1000)}`
  return [`tag ${targetTag(target)}`, ...targetLines(target), time, ''].join('\n')
}

export function formatDiskPlan(plan: DiskPlan): string {
  if (plan.kind === 'refused') return asText(plan.lines.map((line) => ['refused', line]))
  const { disk, table, partitions, persistence } = plan
  const parts = partitions.map(({ label, firstSector, sectors, typeGuid }) => [
    'part',
    `${label} ${firstSector} ${sectors} ${typeGuid}`,
  ])
  return asText([
    ['disk', disk.name],
    ...(disk.serial === undefined ? [] : [['serial', disk.serial]]),
    ['table', table],
    ...(table === 'make' ? parts : []), // a table that is kept is not looked at
    ['persistence', persistence],
    ['arguments', plan.arguments],
  ])
}

/** An empty value leaves the name alone on its line. */
function toLines(fields: readonly (readonly string[])[]): string[] {
  return fields.map((words) => plain(words.join(' ')).trimEnd())
}

function asText(fields: readonly (readonly string[])[]): string {
  return toLines(fields)
    .map((line) => `${line}\n`)
    .join('')
}

function yesOrNo(value: boolean): 'yes' | 'no' {
  return value ? 'yes' : 'no'
}
