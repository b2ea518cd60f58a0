import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import test, { type ExecutionContext } from 'ava'

import type { Clock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'

import { aptError, findMissing, statusPercent } from './apt.ts'
import { checkSpace, ensureBaseImage } from './base-image.ts'
import { kubernetesPackages, PACKAGES, PURPOSES, type Purpose, packagesFor } from './packages.ts'
import { createProgress } from './progress.ts'
import { barLine, duration, progressLine, remainingSeconds, type StepState } from './progress-text.ts'
import { readProgress, recipeError } from './recipe.ts'
import { prepare } from './setup.ts'

const QUIET = createProgress({ write: () => {} }, fakeClock().clock)
const STATE: StepState = { title: 'Image', percent: 0, text: '', elapsedMs: 0, estimateSeconds: undefined }

function fakeClock() {
  const now = { ms: 0 }
  const clock: Clock = {
    nowMs: () => now.ms,
    monotonicMs: () => now.ms,
    after: () => () => {},
  }
  return { now, clock }
}

test('packagesFor() names each package once, sorted, for every purpose', (t) => {
  for (const purpose of Object.keys(PURPOSES) as Purpose[]) {
    const names = packagesFor(purpose)
    t.deepEqual(names, [...new Set(names)].toSorted())
  }
  t.true(packagesFor('lab').includes('qemu-system-x86'))
  t.false(packagesFor('serve').some((name) => /qemu|ovmf/.test(name)))
})

test('kubernetesPackages() names what the source needs, and a compiler only where there is something to compile', (t) => {
  t.false(packagesFor('serve').includes('dpkg-dev'))
  t.true(packagesFor('test').includes('dpkg-dev'))
  t.deepEqual(kubernetesPackages('none'), [])
  t.deepEqual(kubernetesPackages('directory'), [])
  t.deepEqual(kubernetesPackages('packages'), ['gpg'])
  t.true(kubernetesPackages('debian-source').includes('gcc'))
})

test('PACKAGES gives every package a reason', (t) => {
  for (const reasons of Object.values(PACKAGES)) {
    for (const [name, reason] of Object.entries(reasons)) t.regex(reason, /\w{3}/, name)
  }
})

test('findMissing() takes packages that dpkg does not know, or has removed, for missing', (t) => {
  const listing = 'cpio installed\novmf config-files\nzstd installed\n'
  t.deepEqual(findMissing(['cpio', 'ovmf', 'qemu-system-x86', 'zstd'], listing), ['ovmf', 'qemu-system-x86'])
})

const STATUS_LINES: readonly [string, ReturnType<typeof statusPercent>][] = [
  ['dlstatus:1:50:Retrieving file 1 of 2', { percent: 25, text: 'Retrieving file 1 of 2' }],
  ['pmstatus:cpio:40.0:Unpacking cpio (amd64)', { percent: 70, text: 'Unpacking cpio (amd64)' }],
  ['pmstatus:dpkg-exec:100:Running dpkg', { percent: 100, text: 'Running dpkg' }],
  ['pmerror:x:10:no', undefined],
  ['media-change: disc', undefined],
]

for (const [line, expected] of STATUS_LINES) {
  test(`statusPercent() of ${line}`, (t) => t.deepEqual(statusPercent(line), expected))
}

test('aptError() says what apt complained of and what helps', (t) => {
  const like = (complaints: string, message: string, fix: RegExp) => {
    const error = aptError('install x', complaints)
    t.is(error.message, `Cannot install x: ${message}`)
    t.regex(error.fix ?? '', fix)
  }
  like('W: old\nE: Unable to locate package x\nE: more', 'Unable to locate package x', /^see what apt says/)
  like('\nsomething else\n', 'something else', /^see/)
  like('', 'no reason given', /^see/)
  // apt 2.6 and 3.0, without a network: apt-get update ends with 0, and then the package is not in the lists.
  like(
    "W: Failed to fetch http://x/InRelease  Temporary failure resolving 'x'\nE: Unable to locate package x",
    "Failed to fetch http://x/InRelease  Temporary failure resolving 'x'",
    /^connect this machine/,
  )
  const full = "You don't have enough free space in /var/cache/apt/archives/."
  like(`E: ${full}`, full, /^free 2 GB/)
})

test('remainingSeconds() believes the estimate first and the measured pace later', (t) => {
  t.is(remainingSeconds(STATE), undefined)
  t.is(remainingSeconds({ ...STATE, estimateSeconds: 60, elapsedMs: 20_000, percent: 5 }), 40)
  t.is(remainingSeconds({ ...STATE, estimateSeconds: 60, elapsedMs: 20_000, percent: 50 }), 20)
  t.is(remainingSeconds({ ...STATE, estimateSeconds: 10, elapsedMs: 20_000 }), 0)
})

test('barLine() fits the terminal', (t) => {
  const state = { ...STATE, percent: 50, elapsedMs: 30_000, text: 'unpacking the Debian tree' }
  t.is(
    barLine(state, 120),
    'Image [############............]  50 %  about 30 s left  unpacking the Debian tree',
  )
  t.is(barLine(state, 40).length, 39)
  t.is(progressLine(state), 'Image: 50 % (unpacking the Debian tree, about 30 s left)')
})

for (const [seconds, text] of [
  [0.2, '1 s'],
  [89, '89 s'],
  [200, '3 min'],
  [3900, '1 h 5 min'],
] as const) {
  test(`duration() of ${seconds} is ${text}`, (t) => t.is(duration(seconds), text))
}

test('createProgress() writes a line every ten per cent where there is no terminal', (t) => {
  const { now, clock } = fakeClock()
  let written = ''
  const step = createProgress({ write: (text) => (written += text) }, clock).begin('Image', 100)
  for (let percent = 0; percent <= 100; percent += 4) {
    now.ms = percent * 1000
    step.update(percent, 'packing')
  }
  step.done()
  const lines = written.trimEnd().split('\n')
  t.is(lines[0], 'Image … (about 2 min)')
  t.is(lines[1], 'Image: 12 % (packing, about 88 s left)')
  t.is(lines.at(-1), 'Image: done in 2 min')
  t.is(lines.length, 11) // the first, one for each of nine tens, the last
})

test('createProgress() redraws one line on a terminal, and never goes back', (t) => {
  let written = ''
  const output = { isTTY: true, columns: 80, write: (text: string) => (written += text) }
  const step = createProgress(output, fakeClock().clock).begin('Image')
  step.update(40, 'a')
  step.update(20, 'b')
  step.done()
  t.true(written.endsWith('\r\x1b[KImage: done in 0 s\n'))
  t.regex(written, /Image \[#{10}\.{14}\] {2}40 % .*b\r/)
})

test('prepare() refuses without root and names the command with sudo', async (t) => {
  const options = { projectFolder: '/nowhere', env: {}, progress: QUIET, signal: AbortSignal.abort() }
  const error = await t.throwsAsync<KitError>(prepare({ ...options, purpose: 'lab', userId: 1000 }), {
    instanceOf: KitError,
    message: /^Cannot run npm start: it must be run as root/,
  })
  t.is(error?.fix, 'sudo npm start')
})

test('prepare() says what else is wrong before it makes the image', async (t) => {
  const { signal } = new AbortController()
  const options = { projectFolder: '/nowhere', env: {}, progress: QUIET, signal }
  const preflight = async () => {
    throw new KitError('conflict', 'Cannot open the port')
  }
  await t.throwsAsync(prepare({ ...options, purpose: 'lab', userId: 0, preflight }), {
    message: 'Cannot open the port',
  })
})

test('checkSpace() tells what is free and what is needed', async (t) => {
  await t.notThrowsAsync(checkSpace(tmpdir(), 0))
  await t.throwsAsync(checkSpace(tmpdir(), 1_000_000), {
    message: /^Cannot build the base image: [\d.]+ GiB are free in .*, 1000000 are needed$/,
    code: 'no-space',
  })
})

test('readProgress() reads the line of the recipe and nothing else', (t) => {
  t.deepEqual(readProgress('progress 60 packing the initrd'), { percent: 60, text: 'packing the initrd' })
  t.deepEqual(readProgress('progress 100'), { percent: 100, text: '' })
  t.is(readProgress('I: running'), undefined)
})

const ABOUT = { logFile: '/log', title: 'Building the base image' }

test("recipeError() uses the recipe's own words, else its last line and the log", (t) => {
  const known = recipeError(['noise', 'error: Cannot fetch', '  fix: set a mirror'], 'exit code 1', ABOUT)
  t.is(known.message, 'Cannot fetch')
  t.is(known.fix, 'set a mirror')
  const unknown = recipeError(['E: boom', ''], 'exit code 1', ABOUT)
  t.is(unknown.message, 'Building the base image failed: E: boom')
  t.is(unknown.fix, 'read /log')
})

/** A recipe that does what the real one does, in no time. */
async function fakeRecipe(t: ExecutionContext, build: string) {
  const folder = await mkdtemp(join(tmpdir(), 'kateskit-test-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const recipeFolder = join(folder, 'recipe')
  await mkdir(recipeFolder)
  const scripts = { 'digest.sh': 'echo d1', 'build.sh': build }
  for (const [name, body] of Object.entries(scripts)) {
    await writeFile(join(recipeFolder, name), `#!/bin/sh\n${body}\n`)
    await chmod(join(recipeFolder, name), 0o755)
  }
  const env = { PATH: process.env['PATH'], XDG_CACHE_HOME: join(folder, 'cache') }
  return { folder, options: { projectFolder: folder, env, progress: QUIET, recipeFolder } }
}

const BUILDS = `echo built >>"$XDG_CACHE_HOME/count"
echo 'progress 50 half' >&3
mkdir -p "$XDG_CACHE_HOME/kateskit/images/d1"
touch "$XDG_CACHE_HOME/kateskit/images/d1/manifest.json"
echo "$XDG_CACHE_HOME/kateskit/images/d1"`

test('ensureBaseImage() builds once for a recipe', async (t) => {
  const { folder, options } = await fakeRecipe(t, BUILDS)
  const { signal } = new AbortController()
  await ensureBaseImage({ ...options, signal })
  await ensureBaseImage({ ...options, signal })
  t.is(await readFile(join(folder, 'cache/count'), 'utf8'), 'built\n')
})

test('ensureBaseImage() passes the error of the recipe on and keeps its log', async (t) => {
  const { folder, options } = await fakeRecipe(t, 'echo noise >&2; echo "error: Cannot reach it" >&2; exit 1')
  await t.throwsAsync(ensureBaseImage({ ...options, signal: new AbortController().signal }), {
    message: 'Cannot reach it',
  })
  t.is(await readFile(join(folder, 'var/log/image-build.log'), 'utf8'), 'noise\nerror: Cannot reach it\n')
})

test('ensureBaseImage() stops the build when it is interrupted', async (t) => {
  const { options } = await fakeRecipe(t, 'echo "progress 1 started" >&3; exec sleep 600')
  const controller = new AbortController()
  const reason = new Error('interrupted')
  const abortOnProgress = {
    ...QUIET,
    begin: () => ({ update: () => controller.abort(reason), done: () => {}, failed: () => {} }),
  }
  const building = ensureBaseImage({ ...options, progress: abortOnProgress, signal: controller.signal })
  t.is(await t.throwsAsync(building), reason)
})
