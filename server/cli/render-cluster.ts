// The cluster as people read it: pure text.

import { formatTable } from '#lib/text-table.ts'
import { describeBytes } from '#machine/amounts.ts'
import type { ClusterNodeView, ClusterView, Snapshot } from '#machine/cluster-ports.ts'

import { ago } from './time-words.ts'

const NAME_WIDTH = 10

export function renderCluster(view: ClusterView, nowMs: number): string[] {
  return [...head(view), ...renderNodes(view.nodes, nowMs), ...renderMembers(view)]
}

function head({
  state,
  name,
  id,
  endpoint,
  adopted,
  founder,
  version,
  caSha256,
  problem,
}: ClusterView): string[] {
  if (state === 'none') {
    return ['There is no cluster yet: kateskit assign <machine> control-plane makes one.']
  }
  const fields = [
    ['Cluster', `${name} (${id})${adopted ? ', adopted' : ''}`],
    ['State', stateText({ state, founder, problem })],
    ['API', `https://${endpoint}`],
    ['Version', version],
    ['CA', caSha256 === undefined ? undefined : `sha256:${caSha256}`],
  ]
  return fields.flatMap(([field = '', value]) =>
    value === undefined ? [] : [`${field.padEnd(NAME_WIDTH)}${value}`],
  )
}

function stateText({
  state,
  founder,
  problem,
}: {
  state: ClusterView['state']
  founder: string | undefined
  problem: string | undefined
}): string {
  if (state === 'founding') {
    return `${founder} is making it; kateskit cluster forget lets another control plane do it`
  }
  return problem === undefined ? state : `${state}: ${problem}`
}

function renderNodes(nodes: readonly ClusterNodeView[], nowMs: number): string[] {
  if (nodes.length === 0) return []
  const [header = '', ...rows] = formatTable(
    ['NODE', 'MAC', 'PART', 'STATE', 'VERSION', 'PODS', 'SINCE'],
    nodes.map(({ name, mac, role, state, version, podCidr, sinceMs }) => [
      ...[name, mac ?? '-', role, state, version ?? '-', podCidr ?? '-'],
      sinceMs === undefined ? '-' : ago(nowMs - sinceMs),
    ]),
  )
  const notes = nodes.map(({ reason, state }) =>
    reason === undefined || state === 'ready' ? [] : [`    ${reason}`],
  )
  return ['', header, ...rows.flatMap((row, index) => [row, ...(notes[index] ?? [])])]
}

function renderMembers({ etcd }: ClusterView): string[] {
  if (etcd === undefined || etcd.members.length === 0) return []
  return [
    '',
    ...formatTable(
      ['ETCD', 'ID', 'HEALTH', 'LEADER'],
      etcd.members.map(({ name, id, isHealthy, isLeader }) => [
        ...[name || '(not started)', id, isHealthy ? 'healthy' : 'not healthy', isLeader ? 'yes' : ''],
      ]),
    ),
  ]
}

export function renderSnapshots(snapshots: readonly Omit<Snapshot, 'file'>[], nowMs: number): string[] {
  if (snapshots.length === 0) return ['No snapshot of etcd is kept yet.']
  return formatTable(
    ['TAKEN', 'BY', 'SIZE', 'CLUSTER', 'SHA256'],
    snapshots.map(({ takenMs, mac, sizeBytes, clusterId, sha256 }) => [
      ...[ago(nowMs - takenMs), mac, describeBytes(sizeBytes), clusterId, sha256],
    ]),
  )
}
