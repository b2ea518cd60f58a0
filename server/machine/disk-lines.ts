// What a netboot would do to a machine's disk, for people: `kateskit plan <mac>`.

import { describeBytes } from './amounts.ts'
import { type BootPlan, isImagePlan } from './boot-plan.ts'
import { describeDisk } from './disk-conditions.ts'
import { PERSISTENCE_LABEL, partitionBytes } from './disk-layout.ts'
import { describeContents, isBlank } from './disk-plan.ts'
import type { DiskPlan } from './ports.ts'

/** `undefined`: the machine has not reported its disks. */
export function describePlan(plan: BootPlan, diskPlan: DiskPlan | undefined): readonly string[] {
  if (!isImagePlan(plan))
    return [`goes ${plan.kind === 'hold' ? 'nowhere' : 'on to its own disk'}: ${plan.reason}`]
  const starts = `starts image ${plan.image.version} with bundle ${plan.bundle.digest.slice(0, 12)}`
  if (plan.kind === 'live') return [starts, 'runs in memory and writes to no disk']
  if (diskPlan === undefined) {
    return [
      starts,
      'it has not reported its disks yet: it does at its next netboot, before anything is written',
    ]
  }
  if (diskPlan.kind === 'refused') return ['would be refused:', ...diskPlan.lines]
  return [starts, ...describeUse(diskPlan)]
}

function describeUse(plan: Extract<DiskPlan, { kind: 'use' }>): readonly string[] {
  const disk = describeDisk(plan.disk)
  if (plan.table === 'make') {
    const loses = isBlank(plan.disk)
      ? 'loses nothing: the disk is blank'
      : `loses everything on it: ${describeContents(plan.disk)}`
    const parts = plan.partitions.map((part) => `${part.label} ${describeBytes(partitionBytes(part))}`)
    return [`would write a new partition table on ${disk}: ${parts.join(', ')}`, loses]
  }
  const persistence = `${PERSISTENCE_LABEL} (etcd, volumes, machine id, ssh host keys, paths of /etc/kit/persist)`
  const cache = 'both slots, the overlay bundles and the cache of container images'
  return [
    `would write ${cache} anew on ${disk}; the partition table stays`,
    ...(plan.persistence === 'keep'
      ? [`keeps ${persistence}`, 'loses the cache of container images']
      : [`loses ${persistence} and the cache of container images`]),
  ]
}
