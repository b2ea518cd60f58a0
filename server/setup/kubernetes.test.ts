import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import test, { type ExecutionContext } from 'ava'

import { systemClock } from '#lib/clock.ts'

import { ensureBaseImage } from './base-image.ts'
import { ensureKubernetes, type KubernetesChoice, kubernetesEnvironment } from './kubernetes.ts'
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
