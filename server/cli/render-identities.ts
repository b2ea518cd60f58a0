// Which machine is which, as people read it: pure text.

import { formatTable } from '#lib/text-table.ts'
import type { Approval, Attempt, Identity } from '#machine/identity.ts'

import { ago, span } from './time-words.ts'

export interface IdentitiesAnswer {
  readonly identities: readonly Identity[]
  readonly attempts: readonly Attempt[]
  readonly approvals: readonly Approval[]
}

export function renderIdentities(
  { identities, attempts, approvals }: IdentitiesAnswer,
  nowMs: number,
): string[] {
  const known =
    identities.length === 0
      ? ['No machine has proved who it is yet.']
      : formatTable(
          ['MAC', 'TIER', 'SINCE', 'BY', 'CERTIFICATE', 'KEY', 'OTHER MACS'],
          identities.map((identity) => identityRow(identity, nowMs)),
        )
  return [...known, ...renderAttempts(attempts, nowMs), ...renderApprovals(approvals, nowMs)]
}

/** What a person can do about an attempt. */
export function describeAttempt({ mac, state, isConflict }: Attempt): string {
  switch (state) {
    case 'waiting':
      return isConflict
        ? `another key than the known one: kateskit pair ${mac} <code on its console> --replace, or leave it out`
        : `kateskit pair ${mac} <code on its console>`
    case 'refused':
      return `its TPM is not approved: kateskit approve ${mac}`
    case 'challenge':
      return 'it is proving its TPM'
    case 'pairing':
      return 'it is about to show a code'
    default:
      return state satisfies never
  }
}

function identityRow(identity: Identity, nowMs: number): string[] {
  const { mac, macs, tier, sinceMs, by, keySha256, certificateUntilMs } = identity
  const left = certificateUntilMs - nowMs
  const others = macs.filter((each) => each !== mac)
  return [
    ...[mac, tier, ago(nowMs - sinceMs), by],
    left > 0 ? `for ${span(left)}` : `ended ${ago(-left)}`,
    ...[short(keySha256), others.join(', ') || '-'],
  ]
}

function renderAttempts(attempts: readonly Attempt[], nowMs: number): string[] {
  if (attempts.length === 0) return []
  const [header = '', ...rows] = formatTable(
    ['WAITING', 'FROM', 'SINCE', 'KEY', 'TPM'],
    attempts.map(({ mac, address, sinceMs, keySha256, ekSha256 }) => [
      ...[mac, address ?? '-', ago(nowMs - sinceMs), short(keySha256), ekSha256 ?? '-'],
    ]),
  )
  const notes = attempts.map((attempt) => `    ${describeAttempt(attempt)}`)
  return ['', header, ...rows.flatMap((row, index) => [row, notes[index] ?? ''])]
}

function renderApprovals(approvals: readonly Approval[], nowMs: number): string[] {
  if (approvals.length === 0) return []
  return [
    '',
    ...formatTable(
      ['APPROVED TPM', 'BY', 'SINCE'],
      approvals.map(({ ekSha256, by, sinceMs }) => [ekSha256, by, ago(nowMs - sinceMs)]),
    ),
  ]
}

const short = (hex: string) => hex.slice(0, 16)
