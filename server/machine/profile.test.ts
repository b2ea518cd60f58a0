// Tests of profiles: which layers apply to a machine and what they add up to.

import test from 'ava'
import fc from 'fast-check'

import { parseMac } from '#lib/mac.ts'
import { compareDocsTable, docsCell } from '#testing/docs-table.ts'

import { explainProfile, type Layer, type Layers, mergeProfile } from './profile-merge.ts'
import { checkChannelFolder, checkSetting, LAYER_KINDS, SETTINGS } from './settings.ts'

const mac = parseMac('02:4b:69:74:00:01')
const own = 'machines/02-4b-69-74-00-01'

/** Layers from their settings: `{defaults: {boot: 'hold'}}`. */
function layersOf(tree: Readonly<Record<string, Readonly<Record<string, string>>>>): Layers {
  const layers = Object.entries(tree).map(([name, settings]): [string, Layer] => {
    const directory = `/profiles/${name}`
    const values = Object.entries(settings).map(
      ([key, value]) => [key, { value, layer: name, file: `${directory}/${key}` }] as const,
    )
    return [name, { name, directory, settings: new Map(values) }]
  })
  return new Map(layers)
}

test('mergeProfile() gives a machine nobody knows the defaults and no role', (t) => {
  const profile = mergeProfile(
    mac,
    layersOf({ defaults: { 'kernel-arguments': 'quiet' }, 'roles/worker': {} }),
  )
  t.is(profile.role, undefined)
  t.is(profile.channel, 'stable')
  t.deepEqual(profile.layers, ['defaults'])
  t.is(profile.settings.get('kernel-arguments')?.value, 'quiet')
  t.deepEqual(profile.settings.get('boot'), { value: 'install', layer: 'built-in', file: 'default' })
  t.is(profile.broken, undefined)
})

const role = { 'roles/worker': {}, 'roles/gpu': {} }
const choices: readonly [string, Parameters<typeof layersOf>[0], { role?: string; channel: string }][] = [
  ['its own role is named', { ...role, [own]: { role: 'gpu' } }, { role: 'gpu', channel: 'stable' }],
  [
    'the defaults name a role',
    { ...role, defaults: { role: 'worker' } },
    { role: 'worker', channel: 'stable' },
  ],
  [
    'both do',
    { ...role, defaults: { role: 'worker' }, [own]: { role: 'gpu' } },
    { role: 'gpu', channel: 'stable' },
  ],
  [
    'it takes the role of the defaults back',
    { ...role, defaults: { role: 'gpu' }, [own]: { role: '' } },
    { channel: 'stable' },
  ],
  [
    'the role names a channel',
    { defaults: { role: 'worker', channel: 'rc' }, 'roles/worker': { channel: 'beta' } },
    { role: 'worker', channel: 'beta' },
  ],
  [
    'the machine names a channel',
    { 'roles/worker': { channel: 'beta' }, [own]: { role: 'worker', channel: 'nightly' } },
    { role: 'worker', channel: 'nightly' },
  ],
]

for (const [title, tree, expected] of choices) {
  test(`mergeProfile() chooses role and channel when ${title}`, (t) => {
    const profile = mergeProfile(mac, layersOf(tree))
    t.deepEqual({ role: profile.role, channel: profile.channel }, { role: undefined, ...expected })
  })
}

test('mergeProfile() lets the higher layer win', (t) => {
  const names = ['defaults', 'channels/stable', 'roles/worker', own]
  for (const [index, name] of names.entries()) {
    const tree = Object.fromEntries(
      names.map((other, place) => [
        other,
        { ...(other === own && { role: 'worker' }), ...(place <= index && { console: `tty${place}` }) },
      ]),
    )
    const profile = mergeProfile(mac, layersOf(tree))
    t.deepEqual(profile.layers, names)
    t.like(profile.settings.get('console'), { value: `tty${index}`, layer: name })
  }
})

test('mergeProfile() gives the same profile whatever order the layers were read in', (t) => {
  const names = ['defaults', 'channels/stable', 'channels/beta', 'roles/worker', 'roles/gpu', own]
  const value = fc.constantFrom('', 'worker', 'gpu', 'beta', 'hold')
  const settings = fc.dictionary(fc.constantFrom('role', 'channel', 'boot', 'console'), value)
  const tree = fc.array(fc.tuple(fc.constantFrom(...names), settings))
  fc.assert(
    fc.property(tree, (entries) => {
      const unique = Object.entries(Object.fromEntries(entries))
      const [read, reversed] = [unique, unique.toReversed()].map((order) =>
        layersOf(Object.fromEntries(order)),
      )
      t.deepEqual(mergeProfile(mac, read ?? new Map()), mergeProfile(mac, reversed ?? new Map()))
    }),
  )
})

test('mergeProfile() falls back to the table when a higher layer takes a value back', (t) => {
  const layers = layersOf({
    defaults: { boot: 'hold', 'kernel-arguments': 'quiet' },
    [own]: { boot: '', 'kernel-arguments': '' },
  })
  const { settings } = mergeProfile(mac, layers)
  t.is(settings.get('boot')?.value, 'install')
  t.false(settings.has('kernel-arguments'))
})

test('mergeProfile() says that a profile is broken when a layer it needs is', (t) => {
  const good = layersOf({ 'roles/worker': {}, 'roles/gpu': {}, [own]: { role: 'worker' } })
  const withBroken = (name: string) => {
    const layer = good.get(name)
    return new Map(good).set(name, { ...(layer as Layer), broken: `${name} is broken` })
  }
  t.is(mergeProfile(mac, withBroken('roles/worker')).broken, 'roles/worker is broken')
  t.is(mergeProfile(mac, withBroken(own)).broken, `${own} is broken`)
  t.is(mergeProfile(mac, withBroken('roles/gpu')).broken, undefined)
  t.is(mergeProfile(mac, layersOf({ [own]: { role: 'gone' } })).broken, 'there is no folder roles/gone')
})

test('explainProfile() names the file that decided, for each setting', (t) => {
  const layers = layersOf({
    defaults: { boot: 'hold', console: 'tty0' },
    'roles/worker': { console: 'ttyS0' },
    [own]: { role: 'worker', boot: '' },
  })
  t.deepEqual(explainProfile(mac, layers), [
    { key: 'role', value: 'worker', source: `/profiles/${own}/role` },
    { key: 'channel', value: 'stable', source: 'default' },
    { key: 'hostname', value: 'kit-74-00-01', source: 'default' },
    { key: 'ip', value: '', source: 'default' },
    { key: 'identity', value: 'paired', source: 'default' },
    { key: 'boot', value: 'install', source: `/profiles/${own}/boot` },
    { key: 'disk', value: '', source: 'default' },
    { key: 'wipe', value: 'if-ours-or-blank', source: 'default' },
    { key: 'netboot-means', value: 'local-disk', source: 'default' },
    { key: 'powerwash', value: '', source: 'default' },
    { key: 'update-window', value: 'always', source: 'default' },
    { key: 'update-rate', value: '0', source: 'default' },
    { key: 'update-at-once', value: '1', source: 'default' },
    { key: 'update-halt-after', value: '1', source: 'default' },
    { key: 'canary', value: 'no', source: 'default' },
    { key: 'secrets-kept', value: 'persist', source: 'default' },
    { key: 'kubernetes', value: '', source: 'default' },
    { key: 'cni', value: 'bridge', source: 'default' },
    { key: 'node-labels', value: '', source: 'default' },
    { key: 'node-taints', value: '', source: 'default' },
    { key: 'kubelet-arguments', value: '', source: 'default' },
    { key: 'registry-mirror', value: 'no', source: 'default' },
    { key: 'etcd-snapshot-every', value: '1h', source: 'default' },
    { key: 'console', value: 'ttyS0', source: '/profiles/roles/worker/console' },
    { key: 'kernel-arguments', value: '', source: 'default' },
  ])
})

const refusals = [
  ['machines', 'boot', 'maybe', /"maybe"; expected: one of install, live/],
  ['defaults', 'hostnam', 'kit', /no such setting \(did you mean hostname\?\)/],
  ['defaults', 'ip', '10.0.0.1', /it belongs in machines\//],
  ['roles', 'role', 'worker', /it belongs in defaults\/ or machines\//],
  ['machines', 'role', '../worker', /lower-case letters/],
  ['defaults', 'kernel-arguments', 'a\nb', /on one line/],
  ['machines', 'disk', 'size=100', /conditions such as/],
  ['machines', 'disk', 'serial=', /conditions such as/],
  ['machines', 'disk', 'the first one', /conditions such as/],
  ['machines', 'disk', 'size=2T-1T', /conditions such as/],
  ['machines', 'disk', 'transport=ide', /conditions such as/],
  ['machines', 'wipe', 'yes', /one of if-ours-or-blank, force/],
  ['defaults', 'identity', 'anybody', /one of paired, tpm-approved, tpm-first-use, mac-only/],
  ['defaults', 'netboot-means', 'install', /one of local-disk, powerwash/],
  ['roles', 'powerwash', 'now', /it belongs in machines\//],
  ['machines', 'powerwash', 'right now', /one word/],
  ['machines', 'update-window', 'Mon-Fri 22:00-04:00 Europe/Nowhere', /always, never, or times/],
  ['machines', 'update-window', 'Mon-Fri 22:00-22:00', /always, never, or times/],
  ['machines', 'update-window', '22:00-25:00', /always, never, or times/],
  ['machines', 'update-window', 'weekdays 22:00-23:00', /always, never, or times/],
  ['machines', 'update-rate', '20 MB', /bytes a second/],
  ['roles', 'update-at-once', '2', /it belongs in defaults\/ or channels\//],
  ['channels', 'update-at-once', '0', /a number from 1/],
  ['channels', 'update-at-once', '101%', /a number from 1/],
  ['machines', 'update-halt-after', '1', /it belongs in defaults\/ or channels\//],
  ['channels', 'canary', 'yes', /it belongs in roles\/ or machines\//],
  ['machines', 'kubernetes', 'master', /one of control-plane, worker, none/],
  ['defaults', 'cni', 'weave', /one of bridge, flannel, kube-router, cilium, none/],
  ['roles', 'node-labels', 'a=b a=c', /no key twice/],
  ['roles', 'node-labels', 'a=b:c', /key=value/],
  ['roles', 'node-labels', '/a=b', /key=value/],
  ['roles', 'node-taints', 'a=b', /key=value:NoSchedule/],
  ['roles', 'node-taints', 'a:Never', /key=value:NoSchedule/],
  ['roles', 'kubelet-arguments', 'kubeconfig=/etc/passwd', /none that kubeadm gives itself/],
  ['roles', 'kubelet-arguments', '--max-pods=5', /name=value/],
  ['roles', 'kubelet-arguments', 'max-pods', /name=value/],
  ['roles', 'etcd-snapshot-every', '5s', /at least 60s/],
  ['roles', 'registry-mirror', 'true', /one of yes, no/],
] as const

const taken = [
  ['roles', 'node-labels', 'example.org/app=web disk= zone=a.b_c'],
  ['machines', 'node-taints', 'gpu=yes:NoSchedule drain:NoExecute'],
  ['defaults', 'kubelet-arguments', 'max-pods=50\nfeature-gates=A=true,B=false'],
  ['defaults', 'etcd-snapshot-every', '0'],
  ['defaults', 'etcd-snapshot-every', '2d'],
  ['defaults', 'disk', 'model=Samsung* size=>=100G transport=nvme'],
  ['machines', 'powerwash', '2026-11-21'],
  ['roles', 'update-window', 'Mon-Fri 22:00-04:00 Europe/Berlin; Sat,Sun 00:00-24:00'],
  ['channels', 'update-at-once', '25%'],
  ['defaults', 'update-rate', '20M'],
] as const

for (const [kind, key, text] of taken) {
  test(`checkSetting() takes ${key} in ${kind} when it is ${JSON.stringify(text)}`, (t) => {
    t.is(checkSetting(kind, key, text), undefined)
  })
}

test('checkChannelFolder() wants no folder for rc, whose machines use that of stable', (t) => {
  t.regex(checkChannelFolder('rc') ?? '', /machines on rc use channels\/stable/)
  t.is(checkChannelFolder('stable'), undefined)
  t.regex(checkChannelFolder('Stable') ?? '', /a channel is lower-case letters/)
  const layers = layersOf({ 'channels/stable': { boot: 'hold' }, [own]: { channel: 'rc' } })
  const profile = mergeProfile(mac, layers)
  t.is(profile.channel, 'rc')
  t.deepEqual(profile.layers, ['channels/stable', own])
})

for (const [kind, key, text, pattern] of refusals) {
  test(`checkSetting() refuses ${key} in ${kind} when it is ${JSON.stringify(text)}`, (t) => {
    t.regex(checkSetting(kind, key, text) ?? '', pattern)
  })
}

test('checkSetting() accepts an empty value in every layer a setting may stand in', (t) => {
  for (const { key, layers } of SETTINGS) {
    for (const kind of layers ?? LAYER_KINDS) t.is(checkSetting(kind, key, ''), undefined)
  }
})

test('docs/profiles.md lists every setting of a machine', async (t) => {
  const rows = SETTINGS.map(({ key, meaning, layers, fallback }) => [
    `\`${key}\``,
    meaning,
    (layers ?? ['all']).join(', '),
    fallback === undefined ? '' : `\`${fallback}\``,
  ])
  const table = [['file', 'meaning', 'layers', 'default'], ...rows.map((row) => row.map(docsCell))]
  const page = new URL('../../docs/profiles.md', import.meta.url)
  const { inDocs, inCode } = await compareDocsTable(page, 'settings', table)
  t.is(inDocs, inCode)
})
