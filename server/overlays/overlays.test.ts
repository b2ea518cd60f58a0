// Tests of what overlay bundles hold, and what they refuse: archives unpacked by programs nobody here wrote.

import { chmod, mkdir, symlink, utimes } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'

import test from 'ava'
import fc from 'fast-check'

import {
  type Files,
  listTree,
  mac,
  makeOverlays,
  messagesOf,
  run,
  unpack,
  writeFiles,
} from '#testing/overlay-layers.ts'

import { parseAttributes } from './attributes.ts'

test('bundleFor() says modes, owners, links, deletions and empty directories to tar and busybox alike', async (t) => {
  const long = `${'deep/'.repeat(30)}${'n'.repeat(120)}`
  const { home, overlays } = await makeOverlays(t, {
    'low/root/etc/motd': 'low',
    'low/root/etc/kit/low': 'low',
    'low/root/etc/put-back/lost': 'low',
    'low/root/etc/issue': 'low',
    'low/root.attributes':
      '/etc/shadow- delete\n/etc/hosts delete\n/home/kit directory mode=0700 owner=1000:1000\n',
    'high/root/etc/motd': 'high',
    'high/root/etc/hosts': 'put back',
    'high/root/etc/shadow': 'secret',
    'high/root/home/kit/.profile': 'keeps the mode of the lower layer',
    'high/root/root/.ssh/authorized_keys': 'key',
    'high/root/usr/local/bin/tool': '#!/bin/sh',
    'high/root/usr/local/bin/no access': '',
    [`high/root/${long}/ünï`]: 'long',
    'high/root.attributes': [
      '# a comment',
      '/etc/shadow mode=0600 owner=0:42 # another',
      '/etc/put-back delete',
      '/etc/issue delete',
      '"/var/lib/with \\"blank\\" in it" directory mode=1777',
      '/usr/local/bin/tool mode=4755',
      '"/usr/local/bin/no access" mode=0000',
      '/root/.ssh mode=0700',
    ].join('\n'),
  })
  await chmod(join(home, 'high/root/usr/local/bin/tool'), 0o700)
  await chmod(join(home, 'low/root/etc/kit/low'), 0o666)
  await symlink(`/${long}`, join(home, 'high/root/etc/link'))
  await symlink('../../outside', join(home, 'high/root/etc/up'))
  const bundle = await overlays.bundleFor(mac)
  const lines = await unpack(t, bundle)
  t.deepEqual(await unpack(t, bundle, ['busybox', 'tar']), lines)
  t.deepEqual(
    lines.filter((line) => !line.startsWith('deep/')),
    [
      'etc/ 755 0:0',
      'etc/.wh.issue 644 0:0 ',
      'etc/.wh.put-back 644 0:0 ',
      'etc/.wh.shadow- 644 0:0 ',
      'etc/hosts 644 0:0 put back',
      'etc/kit/ 755 0:0',
      'etc/kit/low 644 0:0 low',
      `etc/link -> /${long} 0:0`,
      'etc/motd 644 0:0 high',
      'etc/shadow 600 0:42 secret',
      'etc/up -> ../../outside 0:0',
      'home/ 755 0:0',
      'home/kit/ 700 1000:1000',
      'home/kit/.profile 644 0:0 keeps the mode of the lower layer',
      'root/ 700 0:0',
      'root/.ssh/ 700 0:0',
      'root/.ssh/authorized_keys 644 0:0 key',
      'usr/ 755 0:0',
      'usr/local/ 755 0:0',
      'usr/local/bin/ 755 0:0',
      'usr/local/bin/no access 0 0:0 ',
      'usr/local/bin/tool 4755 0:0 #!/bin/sh',
      'var/ 755 0:0',
      'var/lib/ 755 0:0',
      'var/lib/with "blank" in it/ 1777 0:0',
    ],
  )
  t.is(lines.at(lines.findIndex((line) => line.startsWith('etc/')) - 1), `${long}/ünï 644 0:0 long`)
})

test('bundleFor() makes the same bytes of the same files, whoever wrote them and when', async (t) => {
  const digests = new Set<string>()
  for (const [mask, mode] of [
    [0o022, 0o755],
    [0o077, 0o700],
  ] as const) {
    const { home, overlays } = await makeOverlays(t, { 'high/root.attributes': '/srv/x directory' })
    const root = join(home, 'high/root')
    const names = ['b', 'a/c', 'a-b', 'z']
    for (const name of mask === 0o022 ? names : names.toReversed()) await writeFiles(root, { [name]: name })
    await chmod(join(root, 'a'), mode)
    for (const name of names) await chmod(join(root, name), 0o666 & ~mask)
    await utimes(join(root, 'b'), mask, mask)
    digests.add((await overlays.bundleFor(mac)).digest)
  }
  t.is(digests.size, 1)
  // Known from the first run: another digest means that all machines would get a new bundle after an update.
  t.deepEqual([...digests], ['2467c1c769ebac782b42c8752353a053d01e8c037d3d64e5666a7734bb6139ba'])
})

test('explain() names the layer of every file and what it hides', async (t) => {
  const { overlays } = await makeOverlays(t, {
    'low/root/etc/motd': '',
    'low/root/etc/dir/file': '',
    'low/root.attributes': '/etc/hosts delete',
    'high/root/etc/motd': '',
    'high/root/etc/dir': 'a file over a directory',
    'high/root.attributes': '/etc/motd mode=0600 owner=1:2',
  })
  const rows = (await overlays.explain(mac)).map(({ path, layer, kind, mode, uid, gid, hides }) =>
    [path, layer, kind, mode, uid, gid, hides.join()].join(' '),
  )
  t.deepEqual(rows, [
    '/etc low directory 0755 0 0 ',
    '/etc/dir high file 0644 0 0 low',
    '/etc/hosts low delete 0000 0 0 ',
    '/etc/motd high file 0600 1 2 low',
  ])
})

test('bundleFor() lets a directory of a higher layer replace a link, with what lies in it', async (t) => {
  const { home, overlays } = await makeOverlays(t, { 'high/root/opt/tool/bin': 'x' })
  await mkdir(join(home, 'low/root/opt'), { recursive: true })
  await symlink('/usr', join(home, 'low/root/opt/tool'))
  t.deepEqual(await unpack(t, await overlays.bundleFor(mac)), [
    'opt/ 755 0:0',
    'opt/tool/ 755 0:0',
    'opt/tool/bin 644 0:0 x',
  ])
})

test('bundleFor() refuses what cannot be an overlay and names every file', async (t) => {
  const { home, overlays, told } = await makeOverlays(t, {
    'low/root/etc/.wh.motd': '',
    'low/root/lib/modules/x': '',
    'low/root/run/x': '',
    'low/root/etc/file': '',
    'low/root.attributes': [
      '/etc/../../escape delete',
      'relative mode=0644',
      '/etc/file delete',
      '/etc/file mode=0999',
      '/etc/gone mode=0600',
      '/etc/link/below directory',
      '/etc/link mode=0644',
      '/etc/dir directory delete',
      '"/not closed',
      '/etc/owner owner=root:root directory',
      '/etc/owner sticky directory',
      '/var/run/x delete',
      '/etc/alone',
    ].join('\n'),
  })
  const etc = join(home, 'low/root/etc')
  await symlink('/elsewhere', join(etc, 'link'))
  await run('mkfifo', [join(etc, 'fifo')])
  await run('mknod', [join(etc, 'null'), 'c', '1', '3'])
  await run('sh', ['-c', 'touch "$1/$(printf "\\377")"', 'sh', etc])
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(join(etc, 'socket'), resolve))
  const messages = (await messagesOf(overlays.bundleFor(mac))).map((line) => line.replace(home, ''))
  server.close()
  const expected = [
    /etc\/.*: Cannot use this file: its name is not UTF-8/,
    /etc\/\.wh\.motd: .*names that begin with \.wh\. stand for deletions/,
    /etc\/fifo: .* this is a FIFO/,
    /etc\/null: .* this is a device/,
    /etc\/socket: .* this is a socket/,
    /root\/lib: .*put it into usr\/lib\//,
    /root\/run: .*nothing in \/run of the root is ever seen/,
    /attributes:1: .*without \/\/, \. and \.\./,
    /attributes:2: .*must begin with \//,
    /attributes:3: Cannot delete \/etc\/file: the same layer has it/,
    /attributes:4: .*must be octal/,
    /attributes:5: .*no such file in root\//,
    /attributes:6: .*\/etc\/link is a symlink in the same layer/,
    /attributes:7: .*links have none/,
    /attributes:8: .*exclude each other/,
    /attributes:9: .*quote is not closed/,
    /attributes:10: .*two numbers/,
    /attributes:11: .*"sticky" is none of/,
    /attributes:12: .*\/var\/run is a link/,
    /attributes:13: .*expected mode=/,
  ]
  t.is(messages.length, expected.length, messages.join('\n'))
  for (const pattern of expected)
    t.true(
      messages.some((message) => pattern.test(message)),
      `${pattern}`,
    )
  t.deepEqual(
    told.map(({ kind, data }) => [kind, data?.['layer']]),
    [['profile-broken', 'low']],
  )
  t.is(overlays.problems().length, expected.length)
})

test('bundleFor() refuses to put something beneath a link of another layer', async (t) => {
  const { home, overlays } = await makeOverlays(t, {
    'low/root.attributes': '/etc/gone delete',
    'high/root.attributes': '/etc/link/new directory\n/etc/gone/new directory\n',
  })
  await mkdir(join(home, 'low/root/etc'), { recursive: true })
  await symlink('/elsewhere', join(home, 'low/root/etc/link'))
  const messages = await messagesOf(overlays.bundleFor(mac))
  t.is(messages.length, 2)
  t.regex(messages[0] ?? '', /\/etc\/gone: it is deleted by low/)
  t.regex(messages[1] ?? '', /\/etc\/link: it is a symlink of low/)
})

test('bundleFor() refuses an overlay beyond the limits', async (t) => {
  const limits = { sizeBytes: 10, entries: 3 }
  const big = await makeOverlays(t, { 'low/root/a': 'x'.repeat(11) }, { limits })
  t.regex((await messagesOf(big.overlays.bundleFor(mac)))[0] ?? '', /11 bytes: at most 10/)
  const many = await makeOverlays(t, { 'low/root/a': '', 'low/root/b/c/d': '' }, { limits })
  t.regex((await messagesOf(many.overlays.bundleFor(mac)))[0] ?? '', /4 files: at most 3/)
})

test('parseAttributes() throws on no input and reads back every path that was quoted', (t) => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => {
      parseAttributes(text)
    }),
  )
  const part = fc.string({ minLength: 1 }).filter((text) => !/[\n\r/]|^\.\.?$|^\.wh\./.test(text))
  fc.assert(
    fc.property(fc.array(part, { minLength: 1 }), (parts) => {
      const path = parts.join('/')
      const quoted = `/${path}`.replace(/["\\]/g, '\\$&')
      const { lines, problems } = parseAttributes(`  "${quoted}" delete # a comment`)
      t.deepEqual(problems, [])
      t.deepEqual(lines, [{ path, action: 'delete', line: 1 }])
    }),
  )
})

const names = fc.constantFrom('a', 'b', 'a-', 'ü', 'with blank', 'n'.repeat(110))
const paths = fc.array(names, { minLength: 1, maxLength: 4 }).map((parts) => parts.join('/'))
const layer = fc.dictionary(paths, fc.string({ maxLength: 600 }), { maxKeys: 6 })

test('bundleFor() gives back through tar what went in, the higher layer over the lower', async (t) => {
  await fc.assert(
    fc.asyncProperty(layer, layer, async (low, high) => {
      const [lowFiles, highFiles] = [withoutConflicts(low), withoutConflicts(high)]
      const { home, overlays } = await makeOverlays(t, {
        ...prefixed('low', lowFiles),
        ...prefixed('high', highFiles),
      })
      const lines = await unpack(t, await overlays.bundleFor(mac))
      const expected = join(home, 'expected')
      await mkdir(expected)
      await writeFiles(expected, mergeFiles(lowFiles, highFiles))
      t.deepEqual(lines, await listTree(expected))
    }),
    { numRuns: 40 },
  )
})

const prefixed = (name: string, files: Files): Files =>
  Object.fromEntries(Object.entries(files).map(([path, content]) => [`${name}/root/${path}`, content]))

/** No file where another needs a directory. */
const withoutConflicts = (files: Files): Files =>
  Object.fromEntries(
    Object.entries(files).filter(
      ([path]) => !Object.keys(files).some((longer) => longer.startsWith(`${path}/`)),
    ),
  )

/** Said again in the plainest way: what the higher layer has stands, and what is in its way goes. */
const mergeFiles = (low: Files, high: Files): Files => {
  const isInTheWay = (path: string) =>
    Object.keys(high).some((other) => other.startsWith(`${path}/`) || path.startsWith(`${other}/`))
  return { ...Object.fromEntries(Object.entries(low).filter(([path]) => !isInTheWay(path))), ...high }
}
