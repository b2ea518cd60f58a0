// Tests of overlay bundles: real folders, archives unpacked by programs nobody here wrote.

import { execFile } from 'node:child_process'
import {
  appendFile,
  chmod,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rm,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'

import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'

import { KitError } from '#lib/errors.ts'
import { silentLog } from '#lib/log.ts'
import { type Mac, parseMac } from '#lib/mac.ts'
import type { Event, NewEvent } from '#machine/event.ts'
import type { Bundle } from '#machine/ports.ts'

import { parseAttributes } from './attributes.ts'
import { createJoinedWork } from './joined-work.ts'
import { createOverlays, type OverlaysOptions } from './overlays.ts'

const run = promisify(execFile)

const mac = parseMac('02:4b:69:74:00:01')
const other = parseMac('02:4b:69:74:00:02')

type Files = Readonly<Record<string, string>>

async function makeHome(t: ExecutionContext): Promise<string> {
  const home = await mkdtemp(join(tmpdir(), 'kit-overlays-'))
  t.teardown(() => rm(home, { recursive: true }))
  return home
}

async function writeFiles(directory: string, files: Files): Promise<void> {
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(directory, name)), { recursive: true })
    await writeFile(join(directory, name), content)
  }
}

interface Setup extends Partial<OverlaysOptions> {
  readonly layers?: Readonly<Record<Mac, readonly string[]>>
}

/** Overlays over the layers `low` and `high`, and what they told. */
async function makeOverlays(t: ExecutionContext, files: Files, { layers, ...options }: Setup = {}) {
  const home = await makeHome(t)
  const directory = join(home, 'bundles')
  const told: NewEvent[] = []
  await mkdir(join(home, 'low'))
  await mkdir(join(home, 'high'))
  await writeFiles(home, files)
  const create = () =>
    createOverlays({
      directory,
      sources: {
        layersFor: (of) =>
          (layers?.[of] ?? ['low', 'high']).map((layer) => ({ layer, directory: join(home, layer) })),
      },
      events: {
        async append(event) {
          told.push(event)
          return { ...event, id: told.length, atMs: 0, data: event.data ?? {} } satisfies Event
        },
      },
      log: silentLog,
      graceMs: 0,
      ...options,
    })
  return { home, directory, told, overlays: create(), create }
}

/** What lies in the archive after unpacking, one line per path: kind, mode, owner, content. */
async function unpack(t: ExecutionContext, { file }: Bundle, program: readonly string[] = ['tar']) {
  const target = await makeHome(t)
  const [command = 'tar', ...words] = program
  await run(command, [...words, '-xpf', file, '-C', target])
  return listTree(target)
}

async function listTree(directory: string, prefix = ''): Promise<readonly string[]> {
  const lines: string[] = []
  for (const name of (await readdir(directory)).sort()) {
    const path = join(directory, name)
    const stats = await lstat(path)
    const owner = `${stats.uid}:${stats.gid}`
    const mode = (stats.mode & 0o7777).toString(8)
    if (stats.isSymbolicLink()) lines.push(`${prefix}${name} -> ${await readlink(path)} ${owner}`)
    else if (stats.isDirectory()) {
      lines.push(`${prefix}${name}/ ${mode} ${owner}`, ...(await listTree(path, `${prefix}${name}/`)))
    } else lines.push(`${prefix}${name} ${mode} ${owner} ${await readFile(path, 'utf8')}`)
  }
  return lines
}

async function messagesOf(work: Promise<unknown>): Promise<readonly string[]> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  )
  return error instanceof KitError ? error.message.split('\n').slice(1) : [`not refused: ${error}`]
}

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

test('bundleFor() is never older than the files', async (t) => {
  const { home, overlays } = await makeOverlays(t, { 'low/root/count': '000' })
  const seen = new Set<string>()
  for (let count = 0; count < 50; count += 1) {
    // The same size and often the same time stamp: only the content differs.
    await writeFile(join(home, 'low/root/count'), String(count).padStart(3, '0'))
    seen.add((await overlays.bundleFor(mac)).digest)
  }
  t.is(seen.size, 50)
})

test('bundleFor() gives machines with the same overlay the same archive', async (t) => {
  const layers = { [mac]: ['low', 'high'], [other]: ['low'] }
  const { overlays, directory } = await makeOverlays(t, { 'low/root/a': '', 'high/boot': 'live' }, { layers })
  const [first, second] = await Promise.all([overlays.bundleFor(mac), overlays.bundleFor(other)])
  t.deepEqual(first, second)
  t.deepEqual(await readdir(directory), [`${first.digest}.tar`, 'machines.json'])
  t.is((await lstat(first.file)).size, first.sizeBytes)
  const { stdout } = await run('sha256sum', [first.file])
  t.is(stdout.slice(0, 64), first.digest)
})

test('bundleFor() makes an empty bundle when no layer has an overlay', async (t) => {
  const { overlays } = await makeOverlays(t, {})
  t.deepEqual(await unpack(t, await overlays.bundleFor(mac)), [])
})

test('refresh() tells of a new bundle, keeps the previous one and removes older ones', async (t) => {
  const { home, overlays, told, directory } = await makeOverlays(t, { 'low/root/a': '1' })
  const digests: string[] = []
  for (const content of ['1', '2', '2', '3']) {
    await writeFile(join(home, 'low/root/a'), content)
    await overlays.refresh([mac])
    digests.push((await overlays.bundleFor(mac)).digest)
  }
  const [first = '', second = '', , third = ''] = digests
  t.deepEqual(
    told.map(({ kind, data }) => [kind, data?.['previous'], data?.['bundle']]),
    [
      ['bundle-changed', first, second],
      ['bundle-changed', second, third],
    ],
  )
  t.is(await overlays.findBundle(first), undefined)
  t.is((await overlays.findBundle(second))?.digest, second)
  t.is((await overlays.findBundle(third))?.file, join(directory, `${third}.tar`))
  t.is(await overlays.findBundle('../../etc/passwd'), undefined)
})

test('bundleFor() keeps the last good bundle while a layer is in error, also over a restart', async (t) => {
  const { home, overlays, told, create } = await makeOverlays(t, { 'low/root/a': '1' })
  const good = await overlays.bundleFor(mac)
  await writeFiles(home, { 'low/root/a': '2', 'low/root/.wh.b': '' })
  t.deepEqual(await overlays.bundleFor(mac), good)
  t.deepEqual(await overlays.bundleFor(mac), good)
  t.deepEqual(await create().bundleFor(mac), good)
  await rm(join(home, 'low'), { recursive: true })
  t.deepEqual(await overlays.bundleFor(mac), good)
  await writeFiles(home, { 'low/root/a': '2' })
  t.not((await overlays.bundleFor(mac)).digest, good.digest)
  t.deepEqual(
    told.map(({ kind }) => kind),
    ['profile-broken', 'profile-broken', 'profile-broken', 'profile-mended', 'bundle-changed'],
  )
})

test('bundleFor() takes no bundle of other layers for the last good one', async (t) => {
  const layers = { [mac]: ['low'] }
  const { home, overlays } = await makeOverlays(t, { 'low/root/a': '1', 'high/root/.wh.b': '' }, { layers })
  await overlays.bundleFor(mac)
  layers[mac] = ['low', 'high']
  await t.throwsAsync(overlays.bundleFor(mac), { instanceOf: KitError, code: 'conflict' })
  t.truthy(home)
})

test('bundleFor() makes a sound archive of a file that grows all the time', async (t) => {
  const { home, overlays } = await makeOverlays(t, { 'low/root/log': 'line\n'.repeat(100_000) })
  const file = join(home, 'low/root/log')
  let isDone = false
  const growing = (async () => {
    while (!isDone) await appendFile(file, 'line\n')
  })()
  const result = await overlays.bundleFor(mac).catch((error: unknown) => error)
  isDone = true
  await growing
  // Either it fell between two writes or it was given up; a torn archive is neither.
  if (result instanceof KitError) t.regex(result.message, /low\/root\/log changed while it was read/)
  else t.regex((await unpack(t, result as Bundle))[0] ?? '', /^log 644 0:0 (line\n)+$/)
  t.true((await unpack(t, await overlays.bundleFor(mac))).length > 0)
})

test('createOverlays() removes archives that an earlier run left unfinished', async (t) => {
  const { overlays, directory } = await makeOverlays(t, { 'bundles/.tmp-0011': 'half', 'low/root/a': '' })
  await overlays.bundleFor(mac)
  t.false((await readdir(directory)).includes('.tmp-0011'))
})

test('createOverlays() says where when the directory cannot be made', async (t) => {
  const { overlays } = await makeOverlays(t, { file: '' }, { directory: '/dev/null/bundles' })
  await t.throwsAsync(overlays.bundleFor(mac), { code: 'unavailable', message: /\/dev\/null\/bundles/ })
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

test('createJoinedWork() answers all who come while it runs with one later run', async (t) => {
  let runs = 0
  let finish = () => {}
  const work = createJoinedWork(
    (key: string) => key,
    async (key) => {
      runs += 1
      const run = runs
      await new Promise<void>((resolve) => {
        finish = resolve
      })
      if (run === 3) throw new Error(`run ${run} of ${key}`)
      return run
    },
  )
  const first = work('a')
  const later = [work('a'), work('a')]
  t.is(runs, 1)
  finish()
  t.is(await first, 1)
  finish()
  t.deepEqual(await Promise.all(later), [2, 2])
  const failing = work('a')
  const afterFailure = work('a')
  finish()
  await t.throwsAsync(failing, { message: 'run 3 of a' })
  finish()
  t.is(await afterFailure, 4)
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
