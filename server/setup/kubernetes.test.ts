import { once } from 'node:events'
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import test, { type ExecutionContext } from 'ava'

import { systemClock } from '#lib/clock.ts'

import { ensureBaseImage } from './base-image.ts'
import { ensureKubernetes, imagesFolder, type KubernetesChoice, kubernetesEnvironment } from './kubernetes.ts'
import { chooseKubernetes, type KubernetesSettings, prepareKubernetes } from './kubernetes-source.ts'
import { createProgress } from './progress.ts'

const QUIET = createProgress({ write: () => {} }, systemClock)

/** A project whose recipes do what the real ones do, in no time, and write down how they were called. */
async function fakeProject(t: ExecutionContext) {
  const projectFolder = await mkdtemp(join(tmpdir(), 'kit-setup-'))
  t.teardown(() => rm(projectFolder, { recursive: true, force: true }))
  const scripts = {
    'assets/kubernetes/build.sh': KUBERNETES_RECIPE,
    'assets/image/digest.sh': 'echo "d-$KATESKIT_KUBERNETES_SOURCE"',
    'assets/image/build.sh': IMAGE_RECIPE,
  }
  for (const [name, body] of Object.entries(scripts)) {
    const file = join(projectFolder, name)
    await mkdir(join(file, '..'), { recursive: true })
    await writeFile(file, `#!/bin/sh\nset -eu\n${body}\n`)
    await chmod(file, 0o755)
  }
  const env = { PATH: process.env['PATH'], XDG_CACHE_HOME: join(projectFolder, 'cache') }
  const { signal } = new AbortController()
  const calls = () => readFile(join(projectFolder, 'calls'), 'utf8').catch(() => '')
  return { options: { projectFolder, env, progress: QUIET, signal }, calls }
}

const KUBERNETES_RECIPE = `place="$XDG_CACHE_HOME/kateskit/kubernetes/k"
case "$*" in
  *--find*) [ -d "$place" ] && echo "$place" && exit 0; exit 1 ;;
  *--repository*) [ -n "\${KATESKIT_KUBERNETES_REPOSITORY:-}" ] || { echo 'error: Cannot say where' >&2; echo '  fix: say it' >&2; exit 1; }
    echo "$KATESKIT_KUBERNETES_REPOSITORY"; exit 0 ;;
esac
echo "kubernetes $KATESKIT_KUBERNETES_SOURCE $*" >>calls
[ "$KATESKIT_KUBERNETES_SOURCE" != packages ] || { echo 'error: Cannot fetch packages' >&2; echo '  fix: bring them' >&2; exit 1; }
mkdir -p "$place"
echo '{"version": "v1.30.1", "images": [{"reference": "r/pause:1", "file": "images/pause.tar"}]}' >"$place/kubernetes.json"
echo "$place"`

const IMAGE_RECIPE = `echo "image $KATESKIT_KUBERNETES_SOURCE $KATESKIT_KUBERNETES_CRI" >>calls
mkdir -p "$XDG_CACHE_HOME/kateskit/images/made"
echo "$XDG_CACHE_HOME/kateskit/images/made"`

test('ensureKubernetes() makes it once, and says where programs and archives lie', async (t) => {
  const { options, calls } = await fakeProject(t)
  const choice = { source: 'debian-source' } as const
  const made = await ensureKubernetes({ ...options, choice, versionLabel: 'v1.29.0' })
  t.is(made.version, 'v1.30.1')
  t.is(made.binFolder, join(made.folder, 'bin'))
  t.deepEqual(made.images, [{ reference: 'r/pause:1', file: join(made.folder, 'images/pause.tar') }])
  t.deepEqual(await ensureKubernetes({ ...options, choice }), made)
  t.is(await calls(), 'kubernetes debian-source --version-label v1.29.0\n')
})

test("ensureKubernetes() fails with the recipe's own words", async (t) => {
  const { options } = await fakeProject(t)
  const error = await t.throwsAsync(ensureKubernetes({ ...options, choice: { source: 'packages' } }), {
    message: 'Cannot fetch packages',
  })
  t.is((error as { fix?: string }).fix, 'bring them')
})

test('ensureBaseImage() makes Kubernetes first, and passes the choice on to the recipe of the image', async (t) => {
  const { options, calls } = await fakeProject(t)
  const kubernetes = { source: 'directory', cri: 'cri-o' } as const
  const folder = await ensureBaseImage({ ...options, kubernetes })
  t.is(folder, join(options.env.XDG_CACHE_HOME, 'kateskit/images/made'))
  t.is(await calls(), 'kubernetes directory \nimage directory cri-o\n')
})

test('ensureBaseImage() makes no Kubernetes for an image without', async (t) => {
  const { options, calls } = await fakeProject(t)
  await ensureBaseImage({
    ...{ ...options, env: { ...options.env, KATESKIT_KUBERNETES_CRI: 'containerd' } },
    kubernetes: { source: 'none' },
  })
  t.is(await calls(), 'image none containerd\n')
})

/** What is said, and what is chosen. */
async function choose(t: ExecutionContext, settings: KubernetesSettings) {
  const project = await fakeProject(t)
  let said = ''
  const progress = createProgress({ write: (text) => (said += text) }, systemClock)
  const choice = await chooseKubernetes(settings, { ...project.options, progress })
  return { choice, said: said.trimEnd().split('\n') }
}

/** A repository that has a Release file, for as long as the test runs. */
async function serveRelease(t: ExecutionContext): Promise<{ url: string; asked: string[] }> {
  const asked: string[] = []
  const server = createServer((request, response) => {
    asked.push(request.url ?? '')
    response.statusCode = request.url === '/v1.33/Release' ? 200 : 404
    response.end('Origin: x\n')
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked }
}

test('chooseKubernetes() leaves alone what somebody has said', async (t) => {
  for (const source of ['none', 'directory', 'debian-source', 'packages'] as const) {
    const { choice, said } = await choose(t, { source, cri: 'cri-o' })
    t.deepEqual(choice, { source, cri: 'cri-o' })
    t.deepEqual(said, [''])
  }
})

test('chooseKubernetes() takes packages where their repository answers, and asks it once', async (t) => {
  const { url, asked } = await serveRelease(t)
  const { choice, said } = await choose(t, { source: 'auto', repository: `${url}/v1.33/` })
  t.deepEqual(choice, { source: 'packages', repository: `${url}/v1.33/` })
  t.deepEqual(said, [''])
  t.deepEqual(asked, ['/v1.33/Release'])
})

test('chooseKubernetes() takes none where it does not, and names the ways out in one line', async (t) => {
  const { url, asked } = await serveRelease(t)
  const none = { source: 'none' }
  const gone = await choose(t, { source: 'auto', repository: `${url}/v9.99/` })
  t.deepEqual(gone.choice, none)
  t.is(gone.said.length, 1)
  t.regex(
    gone.said[0] ?? '',
    /v9\.99\/ does not answer \(.*404.*\)\. Name a mirror .* echo debian-source >config\/kubernetes\/source$/,
  )
  t.deepEqual(asked, ['/v9.99/Release'])
  const away = await choose(t, { source: 'auto', repository: 'http://127.0.0.1:1/' })
  t.deepEqual(away.choice, none)
  t.regex(away.said.join(), /does not answer \(\(7\) Failed to connect/)
})

test('chooseKubernetes() looks into a repository that is a folder', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'kit-setup-'))
  t.teardown(() => rm(folder, { recursive: true }))
  const settings = { source: 'auto', repository: `copy:${folder}/` } as const
  t.deepEqual((await choose(t, settings)).choice, { source: 'none' })
  await writeFile(join(folder, 'Release'), '')
  t.is((await choose(t, settings)).choice.source, 'packages')
})

test('chooseKubernetes() gives machines without internet no Kubernetes whose images nobody brings', async (t) => {
  const auto = await choose(t, { source: 'auto', isCutOff: true })
  t.deepEqual(auto.choice, { source: 'none' })
  t.regex(auto.said.join(), /registry\/import names no container images/)
  const asked = await choose(t, { source: 'packages', isCutOff: true })
  t.deepEqual(asked.choice, { source: 'packages' })
  t.regex(asked.said.join(), /^The machines will make no cluster/)
})

test("chooseKubernetes() fails with the recipe's own words for a repository that cannot be", async (t) => {
  const error = await t.throwsAsync(choose(t, { source: 'auto' }), { message: 'Cannot say where' })
  t.is((error as { fix?: string }).fix, 'say it')
})

test('chooseKubernetes() asks nobody for packages that are there already', async (t) => {
  const { options } = await fakeProject(t)
  await ensureKubernetes({ ...options, choice: { source: 'directory' } }) // the recipe here has one place
  t.is((await chooseKubernetes({ source: 'auto' }, options)).source, 'packages')
})

test('prepareKubernetes() makes what was chosen, and nothing for an image without', async (t) => {
  const { options, calls } = await fakeProject(t)
  t.deepEqual(await prepareKubernetes({ source: 'none' }, options), {
    choice: { source: 'none' },
    build: undefined,
  })
  t.is(await calls(), '')
  const { build } = await prepareKubernetes({ source: 'directory' }, options)
  t.is(await calls(), 'kubernetes directory \n')
  t.is(build && imagesFolder(build), join(build?.folder ?? '', 'images'))
  t.is(build && imagesFolder({ ...build, images: [] }), undefined)
})

test('kubernetesEnvironment() names what was chosen and leaves the rest to the recipe', (t) => {
  t.deepEqual(kubernetesEnvironment({ source: 'none' }), { KATESKIT_KUBERNETES_SOURCE: 'none' })
  const all: KubernetesChoice = {
    source: 'packages',
    version: 'v1.33',
    directory: '/d',
    cri: 'cri-o',
    ociRuntime: 'crun',
    repository: 'https://mirror/{minor}',
    repositoryKey: '/key.asc',
  }
  t.deepEqual(kubernetesEnvironment(all), {
    KATESKIT_KUBERNETES_SOURCE: 'packages',
    KATESKIT_KUBERNETES_VERSION: 'v1.33',
    KATESKIT_KUBERNETES_DIRECTORY: '/d',
    KATESKIT_KUBERNETES_CRI: 'cri-o',
    KATESKIT_KUBERNETES_OCI_RUNTIME: 'crun',
    KATESKIT_KUBERNETES_REPOSITORY: 'https://mirror/{minor}',
    KATESKIT_KUBERNETES_REPOSITORY_KEY: '/key.asc',
  })
})
