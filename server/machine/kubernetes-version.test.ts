// Tests of versions of Kubernetes, and of which may stand beside which.

import test from 'ava'

import {
  compareVersions,
  findKubeletSkew,
  findKubernetesVersion,
  findUpgradeProblem,
  formatKubernetesVersion,
  isAtLeast,
  parseKubernetesVersion,
} from './kubernetes-version.ts'

test('findKubernetesVersion() reads what kubeadm and packages say, and nothing else', (t) => {
  const cases: [text: string, read: string | undefined][] = [
    ['v1.33.1', 'v1.33.1'],
    ['1.33.1', 'v1.33.1'],
    ['v1.20.2-dirty', 'v1.20.2'],
    ['1.33.1-1.1', 'v1.33.1'],
    ['v1.30.4+k3s1', 'v1.30.4'],
    ['v1.34.0-rc.1', 'v1.34.0'],
    ['1.20.5+really1.20.2', 'v1.20.5'],
    ['v1.33', undefined],
    ['v1.33.1 ', undefined],
    ['v1.33.1\n', undefined],
    ['v1.33.1; reboot', undefined],
    ['', undefined],
  ]
  for (const [text, read] of cases) {
    const version = findKubernetesVersion(text)
    t.is(version && formatKubernetesVersion(version), read, text)
  }
  t.throws(() => parseKubernetesVersion('new'), { instanceOf: RangeError, message: /"new"/ })
})

test('compareVersions() orders by number, not by text', (t) => {
  const sorted = ['v1.9.11', 'v1.20.2', 'v1.33.0', 'v1.33.1', 'v1.33.10', 'v2.0.0']
  const versions = sorted.map(parseKubernetesVersion)
  t.deepEqual(versions.toReversed().sort(compareVersions).map(formatKubernetesVersion), sorted)
  t.deepEqual(
    versions.map((version) => isAtLeast(version, 20)),
    [false, true, true, true, true, true],
  )
})

test('findKubeletSkew() lets a kubelet be older, as far as the API server allows', (t) => {
  const cases: [kubelet: string, api: string, problem: RegExp | undefined][] = [
    ['v1.33.1', 'v1.33.1', undefined],
    ['v1.33.9', 'v1.33.1', undefined],
    ['v1.30.0', 'v1.33.1', undefined],
    ['v1.29.9', 'v1.33.1', /is 4 minors older .* and 3 is the most: give it a newer image$/],
    ['v1.25.0', 'v1.28.0', undefined],
    ['v1.25.0', 'v1.27.0', undefined],
    ['v1.24.0', 'v1.27.0', /is 3 minors older .* and 2 is the most/],
    ['v1.34.0', 'v1.33.1', /^its kubelet v1.34.0 is newer than the API server, which has v1.33.1: upgrade/],
    ['v2.0.0', 'v1.33.1', /newer/],
  ]
  for (const [kubelet, api, problem] of cases) {
    const found = findKubeletSkew(parseKubernetesVersion(kubelet), parseKubernetesVersion(api))
    if (problem === undefined) t.is(found, undefined, `${kubelet} at ${api}`)
    else t.regex(found ?? '', problem, `${kubelet} at ${api}`)
  }
})

test('findUpgradeProblem() goes up, a minor at a time', (t) => {
  const cases: [from: string, to: string, problem: RegExp | undefined][] = [
    ['v1.33.1', 'v1.33.1', undefined],
    ['v1.33.1', 'v1.33.4', undefined],
    ['v1.33.1', 'v1.34.0', undefined],
    ['v1.33.1', 'v1.35.0', /from v1.33.1 to v1.35.0: no minor may be skipped, v1.34 comes first$/],
    ['v1.33.1', 'v1.33.0', /cannot go back from v1.33.1 to v1.33.0/],
    ['v1.33.1', 'v1.32.9', /cannot go back/],
    ['v1.33.1', 'v2.0.0', /another major/],
  ]
  for (const [from, to, problem] of cases) {
    const found = findUpgradeProblem(parseKubernetesVersion(from), parseKubernetesVersion(to))
    if (problem === undefined) t.is(found, undefined, `${from} to ${to}`)
    else t.regex(found ?? '', problem, `${from} to ${to}`)
  }
})
