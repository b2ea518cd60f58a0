// `/v2/` with real clients: curl, skopeo, containers of requests by hand, and the API that fills it.

import { execFile } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { join } from 'node:path'
import { promisify } from 'node:util'

import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'

import type { JobProgress } from '#lib/import-jobs.ts'
import type { RegistryImported } from '#machine/registry-ports.ts'
import { call, curl, startHttp, startHttpWithToken } from '#testing/http-fixture.ts'
import {
  digestOf,
  INDEX,
  Layout,
  MANIFEST,
  oneImage,
  openRegistry,
  tempFolder,
  writeFolder,
} from '#testing/oci-archive.ts'

const run = promisify(execFile)
const PAUSE = 'registry.k8s.io/pause:3.9'
const BIG = 'layer '.repeat(100_000)

async function startRegistry(t: ExecutionContext) {
  const registry = await openRegistry(t)
  const http = await startHttp(t, { registry })
  const bring = (...args: Parameters<typeof oneImage>) =>
    registry.bring(writeFolder(tempFolder(t), oneImage(...args)))
  return { ...http, registry, bring, v2: `${http.url}/v2` }
}

const errorOf = ({ body }: { readonly body: unknown }) => {
  const value: unknown = typeof body === 'string' && body !== '' ? JSON.parse(body) : body
  return (value as { errors?: { code: string; message: string }[] }).errors?.[0]?.code
}

test('GET /v2/ says that this is a registry, over HTTP and HTTPS, without a token', async (t) => {
  const { v2, tlsUrl, caFile } = await startRegistry(t)
  const answer = await call(`${v2}/`)
  t.like(answer, { status: 200, body: {} })
  t.is(answer.headers.get('docker-distribution-api-version'), 'registry/2.0')
  t.is(await curl('--cacert', caFile, `${tlsUrl}/v2/`), '{}')
})

test('manifests come by tag and by digest, with their type and digest', async (t) => {
  const { v2, registry, bring } = await startRegistry(t)
  await bring(PAUSE, 'one')
  const digest = registry.list()[0]?.digest ?? ''
  for (const reference of ['3.9', digest, digest.replace(':', '%3A')]) {
    for (const method of ['GET', 'HEAD']) {
      const { status, headers, body } = await call(`${v2}/pause/manifests/${reference}?ns=registry.k8s.io`, {
        method,
      })
      t.is(status, 200)
      t.is(headers.get('content-type'), MANIFEST)
      t.is(headers.get('docker-content-digest'), digest)
      t.is(headers.get('etag'), `"${digest.slice(7)}"`)
      t.is(
        headers.get('content-length'),
        `${Buffer.byteLength(readFileSync(blobOf(registry.directory, digest)))}`,
      )
      t.is(`sha256:${digestOf(body as string)}`, method === 'GET' ? digest : `sha256:${digestOf('')}`)
    }
  }
  const known = { headers: { 'if-none-match': `"${digest.slice(7)}"` } }
  t.is((await call(`${v2}/registry.k8s.io/pause/manifests/3.9`, known)).status, 304)
})

const blobOf = (directory: string, digest: string) => join(directory, 'blobs', digest.slice('sha256:'.length))

test('blobs come whole, in part, and as a head', async (t) => {
  const { v2, bring } = await startRegistry(t)
  await bring(PAUSE, BIG)
  const url = `${v2}/pause/blobs/sha256:${digestOf(BIG)}`
  t.is(digestOf(await curl(url)), digestOf(BIG))
  t.is(await curl('--range', '6-10', url), 'layer')
  const head = await curl('--head', url)
  t.regex(head, /^HTTP\/1\.1 200 OK/)
  t.regex(head, new RegExp(`Content-Length: ${BIG.length}\r`))
  t.regex(head, new RegExp(`Docker-Content-Digest: sha256:${digestOf(BIG)}\r`))
  t.regex(head, /Content-Type: application\/octet-stream\r/)
  t.is((await call(url, { headers: { range: `bytes=${BIG.length}-` } })).status, 416)
})

const HOSTS: [path: string, found: boolean][] = [
  ['registry.k8s.io/pause', true],
  ['pause', true], // only one host has it
  ['pause?ns=registry.k8s.io', true],
  ['pause?ns=quay.io', false],
  ['quay.io/pause', false],
  ['library/nginx?ns=docker.io', true],
  ['nginx?ns=docker.io', true],
  ['nginx?ns=registry-1.docker.io', true],
  ['docker.io/library/nginx', true],
  ['index.docker.io/library/nginx', true],
  ['nginx', true],
  ['etcd', false], // two hosts have it
  ['etcd?ns=registry.k8s.io', true],
  ['k8s.gcr.io/etcd', true],
  ['registry.k8s.io/etcd?ns=registry.k8s.io', false],
  ['localhost:5000/a/b', true],
  ['a/b?ns=localhost:5000', true],
  ['a/b?ns=localhost%3A5000', true],
  ['b', false],
]

test('a repository is found by the host it is of, as far as that is said', async (t) => {
  const { v2, bring } = await startRegistry(t)
  for (const name of [
    PAUSE,
    'nginx:3.9',
    'registry.k8s.io/etcd:3.9',
    'k8s.gcr.io/etcd:3.9',
    'localhost:5000/a/b:3.9',
  ])
    await bring(name, name)
  for (const [path, isFound] of HOSTS) {
    const [name, query = ''] = path.split('?')
    const answer = await call(`${v2}/${name}/manifests/3.9?${query}`)
    t.is(answer.status, isFound ? 200 : 404, path)
    if (!isFound) t.is(errorOf(answer), 'NAME_UNKNOWN', path)
  }
})

test('an index is what it is for whom accepts it, and amd64 for who knows no indexes', async (t) => {
  const { v2, registry } = await startRegistry(t)
  const layout = new Layout()
  const images = { arm64: layout.image(['b'], 'arm64'), amd64: layout.image(['a'], 'amd64') }
  const index = layout.index(images)
  await registry.bring(writeFolder(tempFolder(t), layout.name(index, PAUSE).build()))
  const ask = (accept: string, reference = '3.9') =>
    call(`${v2}/pause/manifests/${reference}`, { headers: { accept } })
  for (const accept of [INDEX, '*/*', `${MANIFEST}, ${INDEX};q=0.5`, 'application/*']) {
    const { headers } = await ask(accept)
    t.is(headers.get('content-type'), INDEX, accept)
    t.is(headers.get('docker-content-digest'), index.digest)
  }
  t.is((await ask(MANIFEST)).headers.get('docker-content-digest'), images.amd64.digest)
  t.is(errorOf(await ask('application/vnd.docker.distribution.manifest.v2+json')), 'MANIFEST_UNKNOWN')
  t.is((await ask(MANIFEST, index.digest)).status, 404)
  t.is((await ask(MANIFEST, images.arm64.digest)).status, 200)
})

test('tags and the catalogue come in pages', async (t) => {
  const { v2, bring } = await startRegistry(t)
  for (const tag of ['1', '2', '3']) await bring(`quay.io/a/b:${tag}`, tag)
  await bring(PAUSE, 'x')
  t.deepEqual((await call(`${v2}/_catalog`)).body, { repositories: ['quay.io/a/b', 'registry.k8s.io/pause'] })
  t.deepEqual((await call(`${v2}/_catalog?n=1`)).body, { repositories: ['quay.io/a/b'] })
  const tags = async (query: string) => call(`${v2}/a/b/tags/list?ns=quay.io${query}`)
  t.deepEqual((await tags('')).body, { name: 'a/b', tags: ['1', '2', '3'] })
  const first = await tags('&n=2')
  t.deepEqual(first.body, { name: 'a/b', tags: ['1', '2'] })
  const next = /^<(.*)>; rel="next"$/.exec(first.headers.get('link') ?? '')?.[1] ?? ''
  const second = await call(new URL(next, v2).href)
  t.deepEqual([second.body, second.headers.get('link')], [{ name: 'a/b', tags: ['3'] }, null])
  t.deepEqual((await tags('&n=0')).body, { name: 'a/b', tags: [] })
})

const ZERO = `sha256:${'0'.repeat(64)}`
const REFUSED: [method: string, path: string, status: number, code: string][] = [
  ['GET', 'nothing/manifests/1', 404, 'NAME_UNKNOWN'],
  ['GET', 'nothing/tags/list', 404, 'NAME_UNKNOWN'],
  ['GET', 'pause/manifests/1', 404, 'MANIFEST_UNKNOWN'],
  ['HEAD', 'pause/manifests/1', 404, ''],
  ['GET', `pause/manifests/${ZERO}`, 404, 'MANIFEST_UNKNOWN'],
  ['GET', 'pause/manifests/sha256:00', 400, 'MANIFEST_INVALID'],
  ['GET', `pause/blobs/${ZERO}`, 404, 'BLOB_UNKNOWN'],
  ['GET', 'pause/blobs/sha512:00', 400, 'DIGEST_INVALID'],
  ['GET', 'pause/blobs/..%2f..%2fetc', 404, 'NAME_UNKNOWN'],
  ['GET', 'pause', 404, 'NAME_UNKNOWN'],
  ['GET', `pause/referrers/${ZERO}`, 404, 'NAME_UNKNOWN'], // clients go on with tags then,
  ['GET', '%zz/manifests/1', 400, 'NAME_INVALID'],
  ['POST', 'pause/blobs/uploads/', 405, 'UNSUPPORTED'],
  ['PUT', 'pause/manifests/1', 405, 'UNSUPPORTED'],
  ['DELETE', 'pause/manifests/3.9', 405, 'UNSUPPORTED'],
]

test('refusals have the form of the spec', async (t) => {
  const { v2, bring, registry } = await startRegistry(t)
  await bring(PAUSE, 'one')
  for (const [method, path, status, code] of REFUSED) {
    const answer = await call(`${v2}/${path}`, { method, ...(method === 'PUT' && { body: 'x' }) })
    t.is(answer.status, status, path)
    t.is(errorOf(answer) ?? '', code, path)
  }
  const { directory } = registry
  const [manifest] = registry.list()
  rmSync(blobOf(directory, manifest?.digest ?? ''))
  const answer = await call(`${v2}/pause/manifests/3.9`)
  t.deepEqual([answer.status, errorOf(answer), answer.headers.get('etag')], [503, 'UNKNOWN', null])
  const { url } = await startHttp(t)
  t.is(errorOf(await call(`${url}/v2/`)), 'NAME_UNKNOWN')
})

test('no path brings anything but what is in the registry', async (t) => {
  const { port, bring } = await startRegistry(t)
  await bring(PAUSE, 'one')
  const part = fc.constantFrom(
    ...[
      '..',
      '.',
      '%2e%2e',
      '%2f',
      '%00',
      '',
      'pause',
      'registry.k8s.io',
      'manifests',
      'blobs',
      'tags',
      'list',
    ],
    ...[
      '3.9',
      'blobs',
      'references',
      'incoming',
      'sha256:',
      `sha256:${'a'.repeat(64)}`,
      '_catalog',
      ':',
      '@',
      '%',
    ],
    '\\',
    'a'.repeat(300),
  )
  const paths = fc
    .array(fc.oneof(part, fc.webSegment()), { maxLength: 8 })
    .map((parts) => `/v2/${parts.join('/')}`)
  await fc.assert(
    fc.asyncProperty(
      paths,
      fc.constantFrom('', '?ns=..', '?ns=registry.k8s.io', '?n=-1&last=%00'),
      async (path, query) => {
        const { status, body } = await raw(port, path + query)
        const { pathname } = new URL(`http://x${path}`)
        if (!pathname.startsWith('/v2/')) return
        t.true([200, 400, 404].includes(status), `${path} ${status}`)
        if (status !== 200) t.truthy(errorOf({ body }), path)
        else t.regex(body, /^\{("|\})/, path) // nothing but manifests, lists and the registry itself could be asked for
      },
    ),
    { numRuns: 300 },
  )
})

/** As it is: fetch() would tidy the path. */
function raw(port: number, path: string): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const outgoing = request({ port, path, host: '127.0.0.1' }, (response) => {
      let body = ''
      response.setEncoding('utf8')
      response.on('data', (chunk: string) => {
        body += chunk
      })
      response.once('end', () => resolve({ status: response.statusCode ?? 0, body }))
    })
    outgoing.once('error', reject)
    outgoing.end()
  })
}

test('skopeo copies an image out of it, over HTTP and HTTPS, and it is the same', async (t) => {
  const { registry, port, tlsPort, folder, caFile } = await startRegistry(t)
  const work = tempFolder(t)
  const layout = join(work, 'layout')
  await run('umoci', ['init', '--layout', layout])
  await run('umoci', ['new', '--image', `${layout}:v1`])
  for (const name of ['one', 'two']) {
    writeFileSync(join(work, name), BIG + name)
    await run('umoci', ['insert', '--image', `${layout}:v1`, join(work, name), `/${name}`])
  }
  await registry.bring(layout, 'quay.io/some/image')
  const digest = registry.list()[0]?.digest ?? ''
  const certificates = join(folder, 'trust')
  mkdirSync(certificates)
  writeFileSync(join(certificates, 'ca.crt'), readFileSync(caFile))
  const ways: [from: string, ...options: string[]][] = [
    [`127.0.0.1:${port}/quay.io/some/image:v1`, '--src-tls-verify=false'],
    [`127.0.0.1:${tlsPort}/some/image@${digest}`, `--src-cert-dir=${certificates}`],
  ]
  for (const [index, [from, ...options]] of ways.entries()) {
    const to = `oci:${join(work, `copy-${index}`)}:v1`
    await run('skopeo', [
      'copy',
      '--insecure-policy',
      '--preserve-digests',
      ...options,
      `docker://${from}`,
      to,
    ])
    const copied = JSON.parse((await run('skopeo', ['inspect', to])).stdout) as { Digest: string }
    t.is(copied.Digest, digest)
    await run('umoci', [
      'unpack',
      '--rootless',
      '--image',
      to.slice('oci:'.length),
      join(work, `root-${index}`),
    ])
    t.is(readFileSync(join(work, `root-${index}/rootfs/two`), 'utf8'), `${BIG}two`)
  }
  const { stdout } = await run('skopeo', [
    'list-tags',
    '--tls-verify=false',
    `docker://127.0.0.1:${port}/some/image`,
  ])
  t.deepEqual((JSON.parse(stdout) as { Tags: string[] }).Tags, ['v1'])
})

test('the API fills the registry, lists it, reads it through and removes from it', async (t) => {
  const registry = await openRegistry(t)
  const { api, store } = await startHttpWithToken(t, { registry })
  const post = (path: string, body?: unknown) =>
    api(path, { method: 'POST', ...(body !== undefined && { body: JSON.stringify(body) }) })
  const source = writeFolder(tempFolder(t), oneImage(undefined, 'one'))
  const started = await post('/registry/imports', { source, name: 'registry.k8s.io/pause:3.9' })
  t.is(started.status, 202)
  const { id } = started.body as { id: string }
  t.deepEqual(await registry.importDone(id), [PAUSE])
  const done = (await api(`/registry/imports/${id}`)).body as JobProgress<RegistryImported>
  t.like(done, { state: 'done', percent: 100, text: PAUSE, references: [PAUSE] })
  const { images } = (await api('/registry/images')).body as { images: { reference: string }[] }
  t.deepEqual(images, registry.list() as never)
  t.deepEqual((await post('/registry/verify')).body, { images: [{ reference: PAUSE, problems: [] }] })
  t.is((await post('/registry/verify', { name: 'a:1' })).status, 404)
  const remove = (name: string) => api(`/registry/images${name}`, { method: 'DELETE' })
  t.is((await remove('')).status, 400)
  t.is((await remove('?name=registry.k8s.io/pause:3.8')).status, 404)
  t.deepEqual((await remove(`?name=${encodeURIComponent(PAUSE)}`)).body, { name: PAUSE })
  t.deepEqual(registry.list(), [])
  t.is((await api('/registry/imports/none')).status, 404)
  const failed = await post('/registry/imports', { source: '/does/not/exist' })
  await t.throwsAsync(registry.importDone((failed.body as { id: string }).id))
  const entries = await store.audit.list({ limit: 100 })
  t.true(entries.some(({ action, target }) => action === 'DELETE /registry/images' && target === PAUSE))
  t.true(entries.some(({ action, detail }) => action === 'POST /registry/imports' && detail.includes(source)))
})
