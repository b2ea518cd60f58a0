// Versions of Kubernetes, and which may stand beside which (the version skew policy of Kubernetes, kubeadm's own rules).

export interface KubernetesVersion {
  readonly major: number
  readonly minor: number
  readonly patch: number
}

/** Builds have something after it (`-1.1`, `+k3s1`), which says nothing of order here. */
const SHAPE = /^v?(\d{1,3})\.(\d{1,4})\.(\d{1,4})(?:[-+.~][0-9A-Za-z.+~-]*)?$/

export function findKubernetesVersion(text: string): KubernetesVersion | undefined {
  const match = SHAPE.exec(text)
  if (match === null) return undefined
  return { major: Number(match[1]), minor: Number(match[2]), patch: Number(match[3]) }
}

/** Throws RangeError. */
export function parseKubernetesVersion(text: string): KubernetesVersion {
  const version = findKubernetesVersion(text)
  if (version === undefined)
    throw new RangeError(`Cannot read a version of Kubernetes: ${JSON.stringify(text)}`)
  return version
}

/** `v1.33.1`. */
export function formatKubernetesVersion({ major, minor, patch }: KubernetesVersion): string {
  return `v${major}.${minor}.${patch}`
}

/** Below zero when `left` is the older one. */
export function compareVersions(left: KubernetesVersion, right: KubernetesVersion): number {
  return left.major - right.major || left.minor - right.minor || left.patch - right.patch
}

/** Is it that minor of version 1, or a newer one? */
export function isAtLeast(version: KubernetesVersion, minor: number): boolean {
  return version.major > 1 || version.minor >= minor
}

/** Why this kubelet may not run against that API server; undefined when it may. */
export function findKubeletSkew(kubelet: KubernetesVersion, api: KubernetesVersion): string | undefined {
  const [node, cluster] = [formatKubernetesVersion(kubelet), formatKubernetesVersion(api)]
  const behind = api.minor - kubelet.minor
  if (kubelet.major !== api.major || behind < 0)
    return `its kubelet ${node} is newer than the API server, which has ${cluster}: upgrade the control planes first`
  const most = isAtLeast(api, 28) ? 3 : 2
  if (behind > most)
    return `its kubelet ${node} is ${behind} minors older than the API server, which has ${cluster}, and ${most} is the most: give it a newer image`
  return undefined
}

/** Why a control plane may not go from the one to the other; undefined when it may, also when they are the same. */
export function findUpgradeProblem(from: KubernetesVersion, to: KubernetesVersion): string | undefined {
  const step = `${formatKubernetesVersion(from)} to ${formatKubernetesVersion(to)}`
  if (to.major !== from.major) return `it cannot go from ${step}: that is another major version`
  if (compareVersions(to, from) < 0)
    return `it cannot go back from ${step}: etcd's data may be the newer one's already`
  if (to.minor > from.minor + 1)
    return `it cannot go from ${step}: no minor may be skipped, v${from.major}.${from.minor + 1} comes first`
  return undefined
}
