// `kateskit registry` against a served registry: importing, and what of it a person sees.

import { chmodSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'

import test, { type ExecutionContext } from 'ava'

import { cli } from '#testing/cli-fixture.ts'
import { startHttp } from '#testing/http-fixture.ts'
import { digestOf, oneImage, openRegistry, tempFolder, writeFolder, writeTar } from '#testing/oci-archive.ts'
import { serveFolder } from '#testing/web-folder.ts'

import { renderRegistry } from './render-registry.ts'

const PAUSE = 'registry.k8s.io/pause:3.9'

async function withRegistry(t: ExecutionContext) {
  const registry = await openRegistry(t)
  const { socketFile } = await startHttp(t, { registry })
  return { registry, ...cli({ KATESKIT_HTTP_CONTROL_SOCKET: socketFile }) }
}

test('registry import brings in what is named, by a path of the person or a URL', async (t) => {
  const { registry, run } = await withRegistry(t)
  const folder = writeFolder(tempFolder(t), oneImage(PAUSE, 'one'))
  const { code, out, err } = await run('registry', 'import', relative(process.cwd(), folder))
  t.deepEqual([code, out], [0, `${PAUSE} is here\n`])
  t.regex(err, /^Importing container images …\n(.*\n)*Importing container images: done in \d+ s\n$/)
  const web = tempFolder(t)
  await writeTar(web, 'x.tar.gz', oneImage('v1', 'two'))
  const { url } = await serveFolder(t, web)
  t.like(await run('registry', 'import', `${url}/x.tar.gz`, '--name', 'quay.io/a/b'), {
    code: 0,
    out: 'quay.io/a/b:v1 is here\n',
  })
  t.deepEqual(registry.names(), ['quay.io/a/b:v1', PAUSE])
})

test('registry import tells why not, with the words of the server', async (t) => {
  const { run } = await withRegistry(t)
  const nameless = writeFolder(tempFolder(t), oneImage(undefined, 'one'))
  const { code, err } = await run('registry', 'import', nameless)
  t.is(code, 1)
  t.regex(err, /error: Cannot import .*: its images have no names\n {2}fix: say what it is: --name /)
  t.regex((await run('registry', 'import', '/does/not/exist')).err, /there is no such file or folder/)
  t.regex((await run('registry', 'import', nameless, '--name', '..')).err, /Cannot use "\.\." as the name/)
})

test('registry list, verify and remove', async (t) => {
  const { registry, run } = await withRegistry(t)
  t.regex((await run('registry', 'list')).out, /^There is no container image yet\./)
  for (const name of ['a.io/x:1', PAUSE])
    await registry.bring(writeFolder(tempFolder(t), oneImage(name, name)))
  t.regex(
    (await run('registry', 'list')).out,
    /^IMAGE .*\na\.io\/x:1 .* linux\/amd64 .*\nregistry\.k8s\.io\/pause:3\.9 +sha256:[0-9a-f]{12} +\d+ B +linux\/amd64 +\d+ s ago\n$/,
  )
  t.deepEqual(JSON.parse((await run('registry', 'list', '--json')).out), { images: registry.list() })
  t.like(await run('registry', 'verify'), { code: 0, out: `a.io/x:1: whole\n${PAUSE}: whole\n` })
  const blob = join(registry.directory, 'blobs', digestOf(PAUSE))
  chmodSync(blob, 0o644)
  writeFileSync(blob, PAUSE.toUpperCase())
  t.like(await run('registry', 'verify', 'a.io/x:1'), { code: 0, out: 'a.io/x:1: whole\n' })
  const { code, out, err } = await run('registry', 'verify')
  t.is(code, 1)
  t.regex(out, /pause:3\.9: blob sha256:.* is damaged\n$/)
  t.regex(err, /error: Cannot vouch for registry\.k8s\.io\/pause:3\.9: /)
  t.like(await run('registry', 'remove', PAUSE), { code: 0, out: `${PAUSE} is removed\n` })
  t.like(await run('registry', 'remove', PAUSE), { code: 1 })
  t.deepEqual(registry.names(), ['a.io/x:1'])
})

test('renderRegistry() says what is not served, and why', (t) => {
  const image = {
    ...{ reference: PAUSE, digest: `sha256:${'ab'.repeat(32)}`, sizeBytes: 1_500_000 },
    ...{ platforms: ['linux/amd64', 'linux/arm64'], importedMs: 0 },
  }
  const damaged = { ...image, reference: 'a.io/x:1', platforms: [], problem: 'a blob is missing' }
  t.deepEqual(renderRegistry([damaged, image], 60_000), [
    'IMAGE                      DIGEST               SIZE     PLATFORMS                 IMPORTED',
    'a.io/x:1                   sha256:abababababab  damaged  -                         60 s ago',
    '    not served: a blob is missing',
    'registry.k8s.io/pause:3.9  sha256:abababababab  1.5 MB   linux/amd64, linux/arm64  60 s ago',
  ])
})
