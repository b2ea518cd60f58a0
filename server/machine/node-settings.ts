// What a machine's files say of its part in the cluster: docs/kubernetes.md, "What a machine is in the cluster".

import type { NodeMarks, NodeRole } from './cluster-ports.ts'
import type { Profile } from './profile.ts'

export const NODE_ROLES = ['control-plane', 'worker', 'none'] as const

export const CNI_NAMES = ['bridge', 'flannel', 'kube-router', 'cilium', 'none'] as const
export type CniName = (typeof CNI_NAMES)[number]

const TAINT_EFFECTS = ['NoSchedule', 'PreferNoSchedule', 'NoExecute']

/** Flags that kubeadm or the image give the kubelet: with others it would be no node of this cluster. */
const OWN_ARGUMENTS = [
  ...['bootstrap-kubeconfig', 'kubeconfig', 'config', 'cert-dir', 'root-dir', 'hostname-override'],
  ...['container-runtime-endpoint', 'node-labels', 'register-with-taints', 'node-ip'],
]

/** `app`, `example.org/app`: Kubernetes' syntax of label keys. */
const KEY =
  /^(?:(?=[^/]{1,253}\/)[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*\/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/
const VALUE = /^(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$/
const ARGUMENT = /^[a-z][a-z0-9-]{0,62}=[\x21-\x7e]{0,1000}$/
const SPAN = /^(?<count>\d{1,6})(?<unit>[smhd]?)$/
const UNIT_SECONDS: Readonly<Record<string, number>> = { '': 1, s: 1, m: 60, h: 3_600, d: 86_400 }
/** More often than this, and a control plane does little else. */
const LEAST_SECONDS = 60

export function nodeRoleOf(profile: Profile): NodeRole | 'none' {
  if (profile.role === undefined) return 'none'
  const text = profile.settings.get('kubernetes')?.value ?? profile.role
  return NODE_ROLES.find((role) => role === text) ?? 'none'
}

export function cniOf(profile: Profile): CniName {
  const text = profile.settings.get('cni')?.value
  return CNI_NAMES.find((name) => name === text) ?? 'bridge'
}

export function nodeMarksOf(profile: Profile): NodeMarks {
  const labels = findLabels(profile.settings.get('node-labels')?.value ?? '')
  return { labels: labels ?? {}, taints: findTaints(profile.settings.get('node-taints')?.value ?? '') ?? [] }
}

/** By name. */
export function kubeletArgumentsOf(profile: Profile): ReadonlyMap<string, string> {
  return findKubeletArguments(profile.settings.get('kubelet-arguments')?.value ?? '') ?? new Map()
}

export function isMirrored(profile: Profile): boolean {
  return profile.settings.get('registry-mirror')?.value === 'yes'
}

/** 0 for never. */
export function snapshotSecondsOf(profile: Profile): number {
  return findSpanSeconds(profile.settings.get('etcd-snapshot-every')?.value ?? '1h') ?? 0
}

/** Undefined for what is no such list, as below. */
export function findLabels(text: string): Readonly<Record<string, string>> | undefined {
  const pairs = words(text).map((word) => word.split('='))
  const isRight = pairs.every(
    ([key = '', value = '', ...rest]) => rest.length === 0 && KEY.test(key) && VALUE.test(value),
  )
  if (!isRight || new Set(pairs.map(([key]) => key)).size !== pairs.length) return undefined
  return Object.fromEntries(pairs.map(([key = '', value = '']) => [key, value]))
}

export function findTaints(text: string): readonly string[] | undefined {
  const taints = words(text)
  const isRight = taints.every((taint) => {
    const [mark = '', effect = '', ...rest] = taint.split(':')
    const [key = '', value = '', ...more] = mark.split('=')
    return (
      rest.length + more.length === 0 && KEY.test(key) && VALUE.test(value) && TAINT_EFFECTS.includes(effect)
    )
  })
  return isRight && new Set(taints).size === taints.length ? taints : undefined
}

export function findKubeletArguments(text: string): ReadonlyMap<string, string> | undefined {
  const lines = text.split('\n').map((line) => line.trim())
  const pairs = lines
    .filter((line) => line !== '')
    .map((line) => [line, line.slice(0, Math.max(0, line.indexOf('=')))] as const)
  const isRight = pairs.every(([line, name]) => ARGUMENT.test(line) && !OWN_ARGUMENTS.includes(name))
  if (!isRight || new Set(pairs.map(([, name]) => name)).size !== pairs.length) return undefined
  return new Map(pairs.map(([line, name]) => [name, line.slice(name.length + 1)]))
}

/** `90s`, `30m`, `1h`, `2d`; 0 is never. */
export function findSpanSeconds(text: string): number | undefined {
  const { count, unit } = SPAN.exec(text)?.groups ?? {}
  if (count === undefined) return undefined
  const seconds = Number(count) * (UNIT_SECONDS[unit ?? ''] ?? 1)
  return seconds === 0 || seconds >= LEAST_SECONDS ? seconds : undefined
}

function words(text: string): readonly string[] {
  return text.split(/\s+/).filter((word) => word !== '')
}
