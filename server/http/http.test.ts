import { readdirSync, readFileSync } from 'node:fs'

import test from 'ava'

import { systemClock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import { parseMac } from '#lib/mac.ts'
import { type BootPlan, type ImagePlan, kernelArguments } from '#machine/boot-plan.ts'
import type { Image } from '#machine/ports.ts'
import { findScriptProblem } from '#machine/script-text.ts'
import { SERVER } from '#testing/registry-fixture.ts'

import { loadBootScripts } from './boot-scripts.ts'
import { selectBytes } from './byte-range.ts'
import { ChunkPool } from './chunk-pool.ts'
import { LoginLimit } from './login-limit.ts'
import { ScriptTemplate, toScriptText } from './script-template.ts'

const MAC = parseMac('52:54:00:12:34:56')
const DIGEST = 'ab'.repeat(32)
const { baseUrl: BASE_URL } = SERVER

const part = (first: number, last: number) => ({ kind: 'part', first, last })
const WHOLE = { kind: 'whole' }
const RANGES: [headers: Record<string, string>, outcome: object][] = [
  [{}, WHOLE],
  [{ range: 'bytes=0-9' }, part(0, 9)],
  [{ range: 'bytes=0-0' }, part(0, 0)],
  [{ range: 'bytes=90-' }, part(90, 99)],
  [{ range: 'bytes=90-1000' }, part(90, 99)],
  [{ range: 'BYTES= 5-6' }, part(5, 6)],
  [{ range: 'bytes=-10' }, part(90, 99)],
  [{ range: 'bytes=-1000' }, part(0, 99)],
  [{ range: 'bytes=100-' }, { kind: 'unsatisfiable' }],
  [{ range: 'bytes=-0' }, { kind: 'unsatisfiable' }],
  [{ range: 'bytes=9-5' }, WHOLE],
  [{ range: 'bytes=0-1,4-5' }, WHOLE],
  [{ range: 'lines=0-1' }, WHOLE],
  [{ range: 'bytes=-' }, WHOLE],
  [{ range: 'bytes=a-b' }, WHOLE],
  [{ range: 'bytes=0-9', 'if-range': '"tag"' }, part(0, 9)],
  [{ range: 'bytes=0-9', 'if-range': 'W/"tag"' }, WHOLE],
  [{ range: 'bytes=0-9', 'if-range': '"old"' }, WHOLE],
  [{ range: 'bytes=0-9', 'if-range': 'Sat, 21 Nov 2026 00:00:00 GMT' }, WHOLE],
  [{ 'if-none-match': '"old", W/"tag"' }, { kind: 'not-modified' }],
  [{ 'if-none-match': '*', range: 'bytes=0-9' }, { kind: 'not-modified' }],
  [{ 'if-none-match': '"old"', range: 'bytes=0-9' }, part(0, 9)],
]

test('selectBytes() follows RFC 9110 for each header', (t) => {
  const file = { etag: '"tag"', sizeBytes: 100 }
  for (const [headers, outcome] of RANGES) {
    t.deepEqual(selectBytes(headers, { ...file, method: 'GET' }), outcome as never, JSON.stringify(headers))
  }
  const from = (first: number) => selectBytes({ range: 'bytes=0-9' }, { ...file, method: 'GET', from: first })
  t.deepEqual(
    [0, 99, 100, 101].map((first) => from(first)),
    [
      { kind: 'rest', first: 0 },
      { kind: 'rest', first: 99 },
      { kind: 'rest', first: 100 },
      { kind: 'unsatisfiable' },
    ],
  )
  t.deepEqual(selectBytes({ range: 'bytes=0-9' }, { ...file, method: 'HEAD' }), { kind: 'whole' })
  t.deepEqual(selectBytes({ range: 'bytes=0-' }, { etag: '""', sizeBytes: 0, method: 'GET' }), {
    kind: 'unsatisfiable',
  })
})

test('new ScriptTemplate() refuses a hole it does not know, and a text that is no script', (t) => {
  const make = (text: string) => () => new ScriptTemplate(text, { file: 'x.ipxe', names: ['known'] })
  t.notThrows(make('#!ipxe\necho {{known}}\n'))
  t.throws(make('#!ipxe\necho {{unknown}}\n'), { instanceOf: KitError, message: /x\.ipxe.*\{\{unknown\}\}/ })
  t.throws(make('echo {{known}}\n'), { message: /first line/ })
})

const PROBLEMS: [value: string, problem: RegExp | undefined][] = [
  ['console=ttyS0,115200n8 quiet a||b -- x#y;z', undefined],
  ['', undefined],
  ['two\nlines', /printable/],
  ['a\ttab', /printable/],
  ['naïve', /printable/],
  ['user=$' + '{username}', /expand/],
  ['a || shell', /\|\|/],
  ['a && shell', /&&/],
  ['a ; shell', /;/],
  ['a #comment', /#comment/],
  ['joined \\', /backslash/],
]
for (const [value, problem] of PROBLEMS) {
  test(`findScriptProblem() judges ${JSON.stringify(value)}, and toScriptText() mends it`, (t) => {
    if (problem === undefined) t.is(findScriptProblem(value), undefined)
    else t.regex(findScriptProblem(value) ?? '', problem)
    t.is(findScriptProblem(toScriptText(value)), undefined)
  })
}

const image = (names: readonly string[]): Image => ({
  version: '2026.1',
  arch: 'amd64',
  files: new Map(names.map((name) => [name, { name, sizeBytes: 7, sha256: DIGEST, file: `/x/${name}` }])),
})
const starting = (kind: ImagePlan['kind'], names: readonly string[], extra?: string): ImagePlan => ({
  kind,
  image: image(names),
  bundle: { digest: DIGEST, sizeBytes: 1, file: '/x' },
  profile: {
    mac: MAC,
    role: 'worker',
    channel: 'stable',
    layers: [],
    settings: new Map(
      extra === undefined ? [] : [['kernel-arguments', { value: extra, layer: 'defaults', file: 'f' }]],
    ),
  },
})
const ALL = ['vmlinuz', 'initrd.img', 'root.squashfs']
const offer = (plan: BootPlan) => ({ boot: { id: 'b1', mac: MAC, mintedMs: 1, plan: plan.kind }, plan })

const clock = { ...systemClock, nowMs: () => 1_700_000_000_999 }

for (const kind of ['live', 'install', 'powerwash', 'powerwash-all'] as const) {
  test(`forOffer() makes a script for ${kind} that names everything by absolute URL`, async (t) => {
    const scripts = await loadBootScripts('boot/ipxe', { ...SERVER, clock })
    const plan = starting(kind, ALL)
    const script = scripts.forOffer(offer(plan), MAC)
    const words = kernelArguments(plan, { ...SERVER, id: 'b1', nowMs: clock.nowMs() })
    t.regex(words, new RegExp(`^kit.plan=${kind} .*kit.boot=b1 .*kit.time=1700000000 `))
    t.is(
      script.split('\n').find((line) => line.startsWith('kernel ')),
      `kernel --name vmlinuz ${BASE_URL}/images/2026.1/vmlinuz?mac=52-54-00-12-34-56 initrd=initrd.img ${words}` +
        ' || goto failed',
    )
    t.true(script.startsWith('#!ipxe\necho '))
    t.true(script.includes(`\necho KatesKit: CA ${SERVER.caFingerprint}\n`))
    t.false(script.includes('{{'))
  })
}

test('forOffer() says on the console why a machine goes to its disk or waits', async (t) => {
  const scripts = await loadBootScripts('boot/ipxe', SERVER)
  const disk = scripts.forOffer(
    offer({ kind: 'local-disk', reason: 'no role: kateskit assign <mac> $' + '{x}' }),
    MAC,
  )
  t.true(disk.includes('echo KatesKit: no role: kateskit assign <mac> $ {x}\n'))
  const hold = scripts.forOffer(offer({ kind: 'hold', reason: 'no image\nshell' }), MAC)
  t.true(hold.includes('waiting: no image shell\n'))
  t.true(hold.includes(`${BASE_URL}/boot/52-54-00-12-34-56.ipxe?uuid=\${uuid}`))
})

test('scripts that ask again say once more why they ask', async (t) => {
  const scripts = await loadBootScripts('boot/ipxe', SERVER)
  const asking = [
    scripts.autoexec(),
    scripts.hold('x', MAC),
    scripts.forOffer(offer(starting('live', ALL)), MAC),
  ]
  for (const script of asking) t.regex(script, /chain .*&want=\$\{want\} /)
})

test('forOffer() offers whoever sits at an installed machine a powerwash, and goes on by itself', async (t) => {
  const scripts = await loadBootScripts('boot/ipxe', SERVER)
  const menu = scripts.forOffer(offer({ kind: 'local-disk', reason: 'installed', menu: true }), MAC)
  t.regex(menu, /\nchoose --default disk --timeout 5000 choice \|\| goto disk\n/)
  t.regex(menu, /\/boot\/52-54-00-12-34-56\.ipxe\?.*&want=powerwash /)
  t.notRegex(scripts.forOffer(offer({ kind: 'local-disk', reason: 'no role' }), MAC), /powerwash/)
})

test('forOffer() refuses an incomplete image and arguments that iPXE would act on', async (t) => {
  const scripts = await loadBootScripts('boot/ipxe', SERVER)
  const incomplete = () => scripts.forOffer(offer(starting('live', ['vmlinuz'])), MAC)
  t.throws(incomplete, { instanceOf: KitError, message: /initrd\.img, root\.squashfs/ })
  const sly = () => scripts.forOffer(offer(starting('live', ALL, 'quiet || shell')), MAC)
  t.throws(sly, { instanceOf: KitError, message: /arguments.*\|\|/ })
})

test('every script goes to labels it has, and ends in no shell', async (t) => {
  const scripts = await loadBootScripts('boot/ipxe', SERVER)
  const all = [
    scripts.autoexec(),
    scripts.hold('x', MAC),
    scripts.forOffer(offer(starting('live', ALL)), MAC),
    scripts.forOffer(offer({ kind: 'local-disk', reason: 'x' }), MAC),
    scripts.forOffer(offer({ kind: 'local-disk', reason: 'x', menu: true }), MAC),
    ...(['install', 'powerwash', 'powerwash-all'] as const).map((kind) =>
      scripts.forOffer(offer(starting(kind, ALL)), MAC),
    ),
  ]
  for (const script of all) {
    const labels = [...script.matchAll(/^:(\S+)/gm)].map(([, label]) => label)
    const goals = [...script.matchAll(/goto (\S+)/g)].map(([, label]) => label)
    t.deepEqual(
      goals.filter((goal) => !labels.includes(goal)),
      [],
      script,
    )
    t.notRegex(script, /shell|prompt/)
    t.regex(script.trimEnd().split('\n').at(-1) ?? '', /goto \S+$|^exit 1$/)
  }
})

test('the templates say what they are for on their second line', (t) => {
  for (const name of readdirSync('boot/ipxe').filter((each) => each.endsWith('.ipxe'))) {
    t.regex(readFileSync(`boot/ipxe/${name}`, 'utf8').split('\n')[1] ?? '', /^# \w/)
  }
})

test('ChunkPool reads a chunk once for all who want it, and holds a bounded number', async (t) => {
  const pool = new ChunkPool({ chunkBytes: 4, idleChunks: 2, lentChunks: 9 })
  let reads = 0
  const load = (text: string) => async (buffer: Buffer) => {
    reads++
    return buffer.write(text)
  }
  const loans = await Promise.all([pool.borrow('a', load('aaa')), pool.borrow('a', load('aaa'))])
  t.deepEqual(
    loans.map(({ bytes }) => `${bytes}`),
    ['aaa', 'aaa'],
  )
  t.is(reads, 1)
  for (const loan of loans) loan.giveBack()
  ;(await pool.borrow('a', load('never'))).giveBack()
  t.is(reads, 1)
  const lent = await Promise.all(Array.from({ length: 9 }, (_, n) => pool.borrow(`${n}`, load(`${n}${n}`))))
  t.deepEqual(
    lent.map(({ bytes }) => `${bytes}`),
    Array.from({ length: 9 }, (_, n) => `${n}${n}`),
  )
  for (const loan of lent) loan.giveBack()
  t.true(pool.size <= 4)
})

test('ChunkPool tries again after a read failed', async (t) => {
  const pool = new ChunkPool({ chunkBytes: 4, idleChunks: 2, lentChunks: 9 })
  const fail = () => pool.borrow('a', () => Promise.reject(new Error('EIO')))
  const outcomes = await Promise.allSettled([fail(), fail()])
  t.deepEqual(
    outcomes.map(({ status }) => status),
    ['rejected', 'rejected'],
  )
  const loan = await pool.borrow('a', async (buffer) => buffer.write('ok'))
  t.is(`${loan.bytes}`, 'ok')
})

test('LoginLimit lets ten failures through, then one in six seconds, and keeps addresses apart', (t) => {
  let nowMs = 0
  const limit = new LoginLimit({ nowMs: () => nowMs, monotonicMs: () => nowMs, after: () => () => {} })
  for (let n = 0; n < 10; n++) {
    t.is(limit.waitSeconds('a'), 0)
    limit.failed('a')
  }
  t.is(limit.waitSeconds('a'), 6)
  t.is(limit.waitSeconds('b'), 0)
  nowMs += 6_000
  t.is(limit.waitSeconds('a'), 0)
  limit.failed('a')
  t.is(limit.waitSeconds('a'), 6)
  nowMs += 60_000
  t.is(limit.waitSeconds('a'), 0)
})
