// A machine as a row. What is a list or a document is JSON in its column.

import type { Machine } from '#machine/machine.ts'

import type { MachineRow } from './schema.ts'

export function machineFromRow(row: MachineRow): Machine {
  return {
    mac: row.mac,
    state: row.state,
    stateSinceMs: row.state_since_ms,
    firstSeenMs: row.first_seen_ms,
    lastSeenMs: row.last_seen_ms,
    ...(row.last_check_in_ms !== null && { lastCheckInMs: row.last_check_in_ms }),
    ...(row.uuid !== null && { uuid: row.uuid }),
    ...(row.firmware !== null && { firmware: row.firmware }),
    ...(row.address !== null && { address: row.address }),
    ...(row.boot_id !== null && { bootId: row.boot_id }),
    ...(row.image_version !== null && { imageVersion: row.image_version }),
    ...(row.bundle_digest !== null && { bundleDigest: row.bundle_digest }),
    rebootReasons: JSON.parse(row.reboot_reasons) as readonly string[],
    ...(row.is_installed !== null && { isInstalled: row.is_installed === 1 }),
    ...(row.slot !== null && { slot: row.slot }),
    ...(row.checks !== null && { checks: row.checks }),
    ...(row.reason !== null && { reason: row.reason }),
    ...documentsFromRow(row),
  }
}

/** What this program wrote there itself. */
function documentsFromRow(row: MachineRow): Partial<Machine> {
  const documents: Record<string, unknown> = {}
  for (const key of DOCUMENTS) {
    const text = row[key]
    if (text !== null) documents[key] = JSON.parse(text)
  }
  return documents
}

const DOCUMENTS = ['slots', 'drift', 'disks', 'powerwash', 'powerwashes'] as const

export function rowFromMachine(machine: Machine): MachineRow {
  const json = (key: (typeof DOCUMENTS)[number]) =>
    machine[key] === undefined ? null : JSON.stringify(machine[key])
  return {
    mac: machine.mac,
    state: machine.state,
    state_since_ms: machine.stateSinceMs,
    first_seen_ms: machine.firstSeenMs,
    last_seen_ms: machine.lastSeenMs,
    last_check_in_ms: machine.lastCheckInMs ?? null,
    uuid: machine.uuid ?? null,
    firmware: machine.firmware ?? null,
    address: machine.address ?? null,
    boot_id: machine.bootId ?? null,
    image_version: machine.imageVersion ?? null,
    bundle_digest: machine.bundleDigest ?? null,
    reboot_reasons: JSON.stringify(machine.rebootReasons),
    is_installed: machine.isInstalled === undefined ? null : Number(machine.isInstalled),
    slot: machine.slot ?? null,
    slots: json('slots'),
    checks: machine.checks ?? null,
    reason: machine.reason ?? null,
    drift: json('drift'),
    disks: json('disks'),
    powerwash: json('powerwash'),
    powerwashes: json('powerwashes'),
  }
}
