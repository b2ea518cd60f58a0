// Tests of who gets a kubelet's certificate.

import test from 'ava'

import { parseMac } from '#lib/mac.ts'

import type { NodeCertificateRequest, RequestVerdict } from './cluster-ports.ts'
import { BOOTSTRAP_GROUP, judgeNodeRequest, KUBELET_SIGNER } from './node-request.ts'

const MAC = parseMac('52:54:00:00:00:01')
const GRANTS = [
  { tokenId: 'aaaaaa', kubeletKey: 'a'.repeat(64), nodeName: 'n1', mac: MAC },
  { tokenId: 'bbbbbb', kubeletKey: 'b'.repeat(64), nodeName: 'n2', mac: parseMac('52:54:00:00:00:02') },
]
const RIGHT: NodeCertificateRequest = {
  name: 'node-csr-1',
  username: 'system:bootstrap:aaaaaa',
  groups: ['system:bootstrappers', BOOTSTRAP_GROUP, 'system:authenticated'],
  usages: ['digital signature', 'key encipherment', 'client auth'],
  signerName: KUBELET_SIGNER,
  commonName: 'system:node:n1',
  organizations: ['system:nodes'],
  hasOtherNames: false,
  keySha256: 'a'.repeat(64),
}

const judge = (change: Partial<NodeCertificateRequest>): RequestVerdict =>
  judgeNodeRequest({ ...RIGHT, ...change }, GRANTS)

test('judgeNodeRequest() approves what the grant of the token is for, with an RSA key or another', (t) => {
  t.deepEqual(judge({}), { kind: 'approve', mac: MAC })
  t.deepEqual(judge({ usages: ['client auth', 'digital signature'] }), { kind: 'approve', mac: MAC })
})

test('judgeNodeRequest() denies anything else that a bearer of our tokens asks for', (t) => {
  const cases: [Partial<NodeCertificateRequest>, RegExp][] = [
    [{ username: 'system:bootstrap:cccccc' }, /belongs to no open grant/],
    [{ username: 'system:bootstrap:bbbbbb' }, /it is for "system:node:n1", its grant for system:node:n2/],
    [{ commonName: 'system:node:n10' }, /its grant for system:node:n1$/],
    [{ commonName: 'n1' }, /its grant for/],
    [{ commonName: '' }, /its grant for/],
    [{ commonName: 'x'.repeat(5_000) }, /it is for "x{80}…"/],
    [{ organizations: [] }, /groups/],
    [{ organizations: ['system:masters'] }, /groups "system:masters"/],
    [{ organizations: ['system:nodes', 'system:masters'] }, /groups/],
    [{ hasOtherNames: true }, /other names/],
    [{ keySha256: 'b'.repeat(64) }, /another key than the machine has made/],
    [{ keySha256: '' }, /another key/],
    [{ signerName: 'kubernetes.io/kube-apiserver-client' }, /signer/],
    [{ signerName: 'kubernetes.io/kubelet-serving' }, /signer/],
    [{ usages: ['digital signature'] }, /usages/],
    [{ usages: ['client auth'] }, /usages/],
    [{ usages: [] }, /usages/],
    [{ usages: [...RIGHT.usages, 'server auth'] }, /usages/],
    [{ usages: [...RIGHT.usages, 'cert sign'] }, /usages/],
  ]
  for (const [change, reason] of cases) {
    const verdict = judge(change)
    t.is(verdict.kind, 'deny', JSON.stringify(change))
    if (verdict.kind === 'deny') t.regex(verdict.reason, reason)
  }
})

test('judgeNodeRequest() leaves alone what is no matter of our grants', (t) => {
  const cases: Partial<NodeCertificateRequest>[] = [
    { username: 'system:node:n1', groups: ['system:nodes', 'system:authenticated'] },
    { groups: ['system:bootstrappers', 'system:bootstrappers:kubeadm:default-node-token'] },
    { groups: [] },
    { username: 'kubernetes-admin', groups: [BOOTSTRAP_GROUP] },
    { username: 'system:bootstrap:AAAAAA' },
    { username: 'x system:bootstrap:aaaaaa' },
    { username: '' },
  ]
  for (const change of cases) t.deepEqual(judge(change), { kind: 'leave' }, JSON.stringify(change))
})
