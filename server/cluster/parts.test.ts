// Tests of the parts that need no cluster: what is read of strangers, what is planned, how the API is followed.

import { dumpYaml, loadYaml } from '@kubernetes/client-node'
import test from 'ava'
import fc from 'fast-check'

import { type ErrorCode, KitError } from '#lib/errors.ts'
import type { EtcdMember } from '#machine/cluster-ports.ts'
import { findRemovalFault, quorumOf } from '#machine/etcd-quorum.ts'
import { makeRequest } from '#testing/kube-client.ts'
import { testTls } from '#testing/tls-fixture.ts'
import { TurnedClock } from '#testing/turned-clock.ts'

import { asKitError } from './api-errors.ts'
import { minorsAround } from './basics.ts'
import type { Connection, Query, WatchHearer } from './connection.ts'
import { readMembers } from './etcd-client.ts'
import { follow, type WatchedObject } from './follow.ts'
import { readKubeconfig } from './kubeconfig.ts'
import { MARKS_ANNOTATION, parseTaint, planMarks } from './marks.ts'
import { type RequestSubject, readRequestSubject } from './request-subject.ts'

const NODE = '/O=system:nodes/CN=system:node:n1'
const PLAIN = { commonName: 'system:node:n1', organizations: ['system:nodes'], hasOtherNames: false }
const withoutKey = ({ keySha256: _key, ...rest }: RequestSubject): Omit<RequestSubject, 'keySha256'> => rest

test('readRequestSubject() reads what kubelets send, and shows whatever is more than that', async (t) => {
  const read = async (subject: string, ...more: string[]) =>
    withoutKey(readRequestSubject((await makeRequest(subject, ...more)).pem))
  t.deepEqual(await read(NODE), PLAIN)
  t.deepEqual(await read('/CN=system:node:n1/O=system:nodes'), PLAIN)
  t.deepEqual(await read(NODE, '-addext', 'subjectAltName=DNS:api'), { ...PLAIN, hasOtherNames: true })
  t.deepEqual(await read(`${NODE}/OU=x`), { ...PLAIN, hasOtherNames: true })
  t.deepEqual(await read(`${NODE}/O=system:masters`), {
    ...PLAIN,
    organizations: ['system:nodes', 'system:masters'],
  })
  t.like(await read('/O=system:nodes'), { commonName: '' })
})

test('readRequestSubject() refuses what readers may read differently', async (t) => {
  const { pem, keySha256 } = await makeRequest(NODE)
  const subjects = [`${NODE}/CN=system:node:n2`, '/O=system:nodes+CN=system:node:n1', '/CN=système']
  for (const subject of subjects) {
    const other = await makeRequest(subject, '-multivalue-rdn', '-utf8')
    t.throws(() => readRequestSubject(other.pem), { instanceOf: KitError }, subject)
  }
  const der = Buffer.from(pem.split('\n').slice(1, -2).join(''), 'base64')
  const wrap = (bytes: Uint8Array) =>
    `-----BEGIN CERTIFICATE REQUEST-----\n${Buffer.from(bytes).toString('base64')}\n-----END CERTIFICATE REQUEST-----\n`
  t.deepEqual(readRequestSubject(wrap(der)), { ...PLAIN, keySha256 })
  const texts = [
    ...['', 'x', `${pem}${pem}`, `hello\n${pem}`, `${pem}tail`, pem.replaceAll('REQUEST', 'REQUESTS')],
    ...[wrap(Buffer.concat([der, Buffer.from([0])])), wrap(der.subarray(1)), 'x'.repeat(9_000)],
  ]
  for (const text of texts) t.throws(() => readRequestSubject(text), { code: 'invalid-input' })
  const flips = fc.array(fc.tuple(fc.nat(der.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 })
  fc.assert(
    fc.property(flips, (changes) => {
      const bytes = Buffer.from(der)
      for (const [at, value] of changes) bytes[at] = value
      try {
        readRequestSubject(wrap(bytes))
      } catch (error) {
        if (!(error instanceof KitError)) throw error
      }
    }),
    { numRuns: 500 },
  )
})

const member = (id: string, isHealthy: boolean, isLearner = false): EtcdMember => ({
  ...{ id, name: id, peerUrls: [], isHealthy, isLeader: false, isLearner },
})

test('findRemovalFault() lets a member go only when those who stay have a majority', (t) => {
  t.deepEqual([1, 2, 3, 4, 5].map(quorumOf), [1, 2, 2, 3, 3])
  const [up, down, learner] = [true, false, 'learner'] as const
  const cases: [(boolean | 'learner')[], number, RegExp | undefined][] = [
    [[up], 0, /the only member/],
    [[up, up], 0, undefined],
    [[up, down], 1, /etcd stands still: 1 of 2/],
    [[up, down], 0, /etcd stands still/],
    [[up, up, up], 0, undefined],
    [[up, up, down], 2, undefined],
    [[up, up, down], 0, /of the 2 members that are left, 1 are healthy, and 2 are needed/],
    [[up, down, down], 1, /stands still: 1 of 3/],
    [[up, up, up, down], 3, undefined],
    [[up, up, up, down], 0, undefined],
    [[up, up, up, down, down], 3, undefined],
    [[up, up, up, down, down], 0, /of the 4 members that are left, 2 are healthy/],
    [[up, learner], 1, undefined],
    [[up, learner], 0, /the only member/],
    [[up, up, learner], 2, undefined],
  ]
  for (const [states, gone, fault] of cases) {
    const members = states.map((state, at) => member(`m${at}`, state === true, state === learner))
    const found = findRemovalFault(members, `m${gone}`)
    if (fault === undefined) t.is(found, undefined, JSON.stringify(states))
    else t.regex(found ?? '', fault)
  }
})

test('readMembers() reads numbers of 64 bits, members that have not started, and learners', (t) => {
  const answer = {
    members: [
      { ID: '10501334649042878790', name: 'a', peerURLs: ['https://a:2380'], clientURLs: ['https://a:2379'] },
      { ID: '1', peerURLs: ['https://b:2380'], isLearner: true, clientURLs: ['http://b:2379'] },
    ],
  }
  t.deepEqual(readMembers(answer), [
    {
      facts: { id: '91bc3c398fb3c146', name: 'a', peerUrls: ['https://a:2380'] },
      clientUrls: ['https://a:2379'],
    },
    { facts: { id: '1', name: '', peerUrls: ['https://b:2380'], isLearner: true }, clientUrls: [] },
  ])
  for (const wrong of [{}, { members: [{}] }, { members: [{ ID: 5 }] }])
    t.throws(() => readMembers(wrong), { code: 'unavailable' })
})

test('planMarks() adds what is wanted, takes off what was ours, and leaves the rest', (t) => {
  const node = (labels: Record<string, string>, taints: string[], owned?: object) => ({
    metadata: {
      ...{ resourceVersion: '7', labels },
      annotations: owned === undefined ? {} : { [MARKS_ANNOTATION]: JSON.stringify(owned) },
    },
    spec: { taints: taints.map(parseTaint) },
  })
  const none = { labels: {}, taints: [] }
  t.is(planMarks(node({ theirs: 'x' }, ['a:NoSchedule']), none), undefined)
  const first = planMarks(node({ theirs: 'x' }, ['a=1:NoSchedule']), {
    labels: { rack: 'a' },
    taints: ['b=2:NoExecute'],
  })
  t.deepEqual(first, {
    metadata: {
      resourceVersion: '7',
      labels: { rack: 'a' },
      annotations: { [MARKS_ANNOTATION]: '{"labels":["rack"],"taints":["b:NoExecute"]}' },
    },
    spec: { taints: [parseTaint('a=1:NoSchedule'), parseTaint('b=2:NoExecute')] },
  })
  const owned = { labels: ['rack'], taints: ['b:NoExecute'] }
  const marked = node({ theirs: 'x', rack: 'a' }, ['a=1:NoSchedule', 'b=2:NoExecute'], owned)
  t.is(planMarks(marked, { labels: { rack: 'a' }, taints: ['b=2:NoExecute'] }), undefined)
  t.deepEqual(planMarks(marked, none), {
    metadata: { resourceVersion: '7', labels: { rack: null }, annotations: { [MARKS_ANNOTATION]: null } },
    spec: { taints: [parseTaint('a=1:NoSchedule')] },
  })
  // The same value, set by a kubelet at its join: from now on it is ours.
  t.like(planMarks(node({ rack: 'a' }, []), { labels: { rack: 'a' }, taints: [] }), {
    metadata: { labels: {} },
  })
  const broken = { metadata: { annotations: { [MARKS_ANNOTATION]: '{"labels":7' }, labels: { rack: 'a' } } }
  t.like(planMarks(broken, none), { metadata: { labels: {} } })
  t.deepEqual(parseTaint('k:NoSchedule'), { key: 'k', effect: 'NoSchedule' })
  for (const wrong of ['k', 'k=v', 'k=v:Never', '=v:NoSchedule', 'k=v w:NoSchedule'])
    t.throws(() => parseTaint(wrong), { code: 'invalid-input' })
})

test('minorsAround() names a minor and those after it', (t) => {
  t.deepEqual(minorsAround('v1.20.2'), ['1.20', '1.21', '1.22'])
  t.deepEqual(minorsAround('unknown'), [])
})

test('asKitError() tells an answer from none, and what the cluster said', (t) => {
  const answer = (code: number, body: unknown) => Object.assign(new Error('HTTP-Code'), { code, body })
  const refused = Object.assign(new Error('connect ECONNREFUSED 10.0.0.1:6443'), { code: 'ECONNREFUSED' })
  const cases: [unknown, ErrorCode, RegExp][] = [
    [
      answer(404, { message: 'nodes "n1" not found' }),
      'not-found',
      /the cluster says: nodes "n1" not found$/,
    ],
    [answer(403, '{"message":"no"}'), 'forbidden', /says: no$/],
    [answer(401, 'x'), 'unavailable', /the cluster answered 401$/],
    [answer(409, {}), 'conflict', /409/],
    [answer(500, undefined), 'unavailable', /500/],
    [
      new TypeError('fetch failed', { cause: refused }),
      'unavailable',
      /: connect ECONNREFUSED 10.0.0.1:6443$/,
    ],
    [
      new DOMException('The operation was aborted due to timeout', 'TimeoutError'),
      'unavailable',
      /due to timeout$/,
    ],
    [new KitError('no-space', 'x'), 'no-space', /^x$/],
  ]
  for (const [thrown, code, message] of cases) {
    const error = asKitError('do it', thrown)
    t.is(error.code, code)
    t.regex(error.message, message)
  }
})

async function kubeconfig(change: { cluster?: object; user?: object; root?: object } = {}): Promise<string> {
  const ca = Buffer.from((await testTls()).source.caPem).toString('base64')
  const cluster = { server: 'https://10.0.0.1:6443', 'certificate-authority-data': ca, ...change.cluster }
  return dumpYaml({
    ...{ apiVersion: 'v1', kind: 'Config', 'current-context': 'c', preferences: {} },
    contexts: [{ name: 'c', context: { cluster: 'k', user: 'u' } }],
    clusters: [{ name: 'k', cluster }],
    users: [
      { name: 'u', user: { token: 'abc', ...change.user } },
      { name: 'another', user: { exec: { command: 'touch' } } },
    ],
    ...change.root,
  })
}

test('readKubeconfig() takes a token or a certificate, and nothing that runs or reads on this host', async (t) => {
  const target = readKubeconfig(await kubeconfig({ cluster: { 'tls-server-name': 'api' } }), loadYaml)
  t.like(target, { server: 'https://10.0.0.1:6443', token: 'abc', tlsServerName: 'api' })
  t.true(target.authority.includes('BEGIN CERTIFICATE'))
  const cases: [Parameters<typeof kubeconfig>[0], RegExp][] = [
    [{ user: { exec: { command: '/bin/sh' } } }, /runs a program \(exec\)/],
    [{ user: { 'auth-provider': { name: 'oidc' } } }, /auth-provider/],
    [{ user: { 'client-certificate': '/etc/shadow' } }, /names a file \(client-certificate\)/],
    [{ user: { 'client-key': '/etc/shadow' } }, /names a file/],
    [{ user: { tokenFile: '/etc/shadow' } }, /names a file \(tokenFile\)/],
    [{ user: { 'token-file': '/etc/shadow' } }, /names a file \(token-file\)/],
    [{ user: { username: 'a', password: 'b' } }, /a user name/],
    [{ user: { as: 'system:admin' } }, /acts as somebody else/],
    [{ user: { novelty: 1 } }, /not known here: novelty/],
    [{ user: { token: '' } }, /neither a token nor a certificate/],
    [{ user: { token: 'a\r\nHost: b' } }, /its token cannot be one/],
    [{ user: { 'client-key-data': 'eA==' } }, /not PEM/],
    [{ cluster: { 'certificate-authority': '/etc/shadow' } }, /names a file \(certificate-authority\)/],
    [{ cluster: { 'insecure-skip-tls-verify': true } }, /does not check the certificate/],
    [{ cluster: { 'proxy-url': 'http://10.0.0.2' } }, /proxy/],
    [{ cluster: { server: 'http://10.0.0.1:8080' } }, /no plain https URL/],
    [{ cluster: { server: 'https://a:b@10.0.0.1' } }, /no plain https URL/],
    [{ root: { 'current-context': 'none' } }, /the context of its current context is missing/],
    [{ root: { clusters: null } }, /the cluster of its current context is missing/],
  ]
  for (const [change, message] of cases) {
    const text = await kubeconfig(change)
    t.throws(() => readKubeconfig(text, loadYaml), { code: 'invalid-input', message })
  }
  for (const text of ['', ': :', '[]', 'x', '{"a": ', 'a'.repeat(200_000)])
    t.throws(() => readKubeconfig(text, loadYaml), { code: 'invalid-input' })
})

/** A connection whose answers a test gives. */
function scripted() {
  const lists: (() => Promise<unknown>)[] = []
  const asked: Query[] = []
  let hearer: WatchHearer | undefined
  let wake: () => void = () => {}
  const connection = {
    closing: new AbortController().signal,
    get: (path: string) => (path === '/version' ? Promise.resolve({}) : (lists.shift() ?? never)()),
    watch(_path: string, query: Query, hear: WatchHearer) {
      asked.push(query)
      hearer = hear
      wake()
      return { stop: () => {} }
    },
  } as unknown as Connection
  const never = () => new Promise<unknown>(() => {})
  return {
    ...{ connection, lists, asked },
    hearer: () => hearer as WatchHearer,
    watched: (times: number) =>
      new Promise<void>((resolve) => {
        wake = () => asked.length >= times && resolve()
        wake()
      }),
  }
}

const listOf =
  (version: string, ...names: string[]) =>
  async () => ({
    metadata: { resourceVersion: version },
    items: names.map(itemOf),
  })
const itemOf = (name: string) => ({ metadata: { name, uid: name, resourceVersion: '1' } })

test('follow() goes on where a watch ended, and lists anew where the API has forgotten what was since', async (t) => {
  const clock = new TurnedClock()
  const { connection, lists, asked, hearer, watched } = scripted()
  const seen: string[] = []
  const problems: (string | undefined)[] = []
  lists.push(listOf('10', 'a', 'b'), listOf('90', 'z'), async () => {
    throw Object.assign(new Error('no'), { code: 503 })
  })
  const follower = follow<WatchedObject>(connection, {
    ...{ clock, path: '/x', query: { fieldSelector: 'f' } },
    onItems: (items) => seen.push([...items.keys()].join('')),
    onState: (problem) => problems.push(problem?.code),
  })
  await watched(1)
  t.like(asked[0], { resourceVersion: '10', fieldSelector: 'f', allowWatchBookmarks: 'true' })
  hearer().event('ADDED', { metadata: { uid: 'c', resourceVersion: '11' } })
  hearer().event('DELETED', { metadata: { uid: 'a', resourceVersion: '12' } })
  hearer().event('BOOKMARK', { metadata: { resourceVersion: '20' } })
  t.deepEqual(seen, ['ab', 'abc', 'bc'])
  clock.turn(300_000)
  hearer().ended({ kind: 'closed' })
  await watched(2)
  t.like(asked[1], { resourceVersion: '20' })
  hearer().ended({ kind: 'quiet' })
  await watched(3)
  t.like(asked[2], { resourceVersion: '20' })
  hearer().event('ERROR', { kind: 'Status', code: 410, message: 'too old resource version' })
  await watched(4)
  t.like(asked[3], { resourceVersion: '90' })
  t.is(seen.at(-1), 'z')
  t.deepEqual(problems, [undefined, undefined])

  hearer().ended({ kind: 'failed', error: new Error('terminated') })
  t.is(problems.at(-1), 'unavailable')
  clock.turn(500)
  await new Promise(setImmediate)
  t.is(problems.length, 4)
  // Each wait is twice the one before.
  lists.push(listOf('91', 'y'))
  clock.turn(999)
  t.is(asked.length, 4)
  clock.turn(1)
  await watched(5)
  t.is(problems.at(-1), undefined)
  hearer().ended({ kind: 'failed', error: new Error('terminated') })
  follower.stop()
  t.is(clock.waiting, 0)
})

test('follow() does not ask without end where each watch ends at once', async (t) => {
  const clock = new TurnedClock()
  const { connection, lists, asked, hearer, watched } = scripted()
  lists.push(listOf('1'), listOf('2'))
  const follower = follow(connection, { clock, path: '/x', onItems: () => {} })
  await watched(1)
  hearer().ended({ kind: 'closed' })
  t.is(asked.length, 1)
  clock.turn(500)
  await watched(2)
  follower.stop()
})
