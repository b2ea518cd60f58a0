import { once } from 'node:events'
import { readdirSync, readFileSync, readlinkSync, renameSync, truncateSync, writeFileSync } from 'node:fs'
import { get } from 'node:http'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'

import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'

import { parseMac } from '#lib/mac.ts'
import { FakeImageStore } from '#testing/fake-releases.ts'
import { curl, startHttp } from '#testing/http-fixture.ts'

const MAC = parseMac('52:54:00:12:34:56')
const MEGABYTE = 1024 * 1024
/** 3 MB in which every position can be told from every other. */
const KERNEL = Buffer.from(Uint32Array.from({ length: 786_432 }, (_, n) => n * 2654435761).buffer)

async function start(t: ExecutionContext, options: Parameters<typeof startHttp>[1] = {}) {
  const http = await startHttp(t, options)
  http.files.setImage('7', {
    vmlinuz: KERNEL,
    'initrd.img': 'initrd',
    'root.squashfs': '',
    'ipxe/snponly.efi': 'MZ loader',
  })
  return {
    ...http,
    kernelUrl: `${http.url}/images/7/vmlinuz`,
    out: (name: string) => join(http.folder, name),
  }
}

/** Answers with `status header…` of a request, as curl sees it. */
const headOf = async (...args: string[]) => {
  const saved = args.includes('-o') ? [] : ['-o', '/dev/null']
  return (await curl('-D', '-', ...saved, ...args)).toLowerCase()
}

test('an image file is sent whole, with its length and its ETag', async (t) => {
  const { kernelUrl, out, files } = await start(t)
  const head = await headOf(kernelUrl, '-o', out('kernel'))
  t.true(KERNEL.equals(readFileSync(out('kernel'))))
  t.regex(head, /^http\/1\.1 200/)
  t.true(head.includes(`content-length: ${KERNEL.length}`))
  t.true(head.includes(`etag: "${files.image?.files.get('vmlinuz')?.sha256}"`))
  t.true(head.includes('accept-ranges: bytes'))
  t.true(head.includes('x-content-type-options: nosniff'))
})

test('HEAD tells the length and sends nothing', async (t) => {
  const { kernelUrl } = await start(t)
  const head = (await curl('-I', kernelUrl)).toLowerCase()
  t.regex(head, /^http\/1\.1 200/)
  t.true(head.includes(`content-length: ${KERNEL.length}`))
})

test('a file of no bytes is sent as such', async (t) => {
  const { url } = await start(t)
  t.regex(await headOf(`${url}/images/7/root.squashfs`), /200 ok[\s\S]*content-length: 0\r/)
})

test('curl resumes a download with -C -, and takes any range', async (t) => {
  const { kernelUrl, out } = await start(t)
  writeFileSync(out('part'), KERNEL.subarray(0, 700_001))
  await curl('-C', '-', '-o', out('part'), kernelUrl)
  t.true(KERNEL.equals(readFileSync(out('part'))))
  for (const [range, bytes] of [
    ['524280-1048600', KERNEL.subarray(524_280, 1_048_601)],
    ['3145720-', KERNEL.subarray(3_145_720)],
    ['-5', KERNEL.subarray(-5)],
  ] as const) {
    const head = await headOf('-r', range, '-o', out('range'), kernelUrl)
    t.regex(head, /^http\/1\.1 206[\s\S]*content-range: bytes \d+-\d+\/3145728/)
    t.true(bytes.equals(readFileSync(out('range'))), range)
  }
  const beyond = await headOf('-r', '9999999-', kernelUrl)
  t.regex(beyond, /^http\/1\.1 416[\s\S]*content-range: bytes \*\/3145728/)
})

test('from answers 200 with the rest of a file, whatever the Range, up to nothing at its end', async (t) => {
  const { kernelUrl, out, files } = await start(t)
  const etag = `"${files.image?.files.get('vmlinuz')?.sha256}"`
  for (const from of [0, 1, 524_287, 524_288, 3_145_727, 3_145_728]) {
    const head = await headOf(
      '-r',
      '0-9',
      `${kernelUrl}?mac=52-54-00-12-34-56&from=${from}`,
      '-o',
      out('rest'),
    )
    t.true(head.startsWith('http/1.1 200'), `${from}`)
    t.true(head.includes(`etag: ${etag}`))
    t.true(head.includes(`content-length: ${KERNEL.length - from}\r`))
    t.true(head.includes('accept-ranges: none'))
    t.true(KERNEL.subarray(from).equals(readFileSync(out('rest'))), `${from}`)
  }
  t.true((await curl('-I', `${kernelUrl}?from=3145700`)).includes('Content-Length: 28\r'))
  t.regex(await headOf(`${kernelUrl}?from=3145729`), /^http\/1\.1 416[\s\S]*content-range: bytes \*\/3145728/)
  t.regex(await headOf('-H', `If-None-Match: ${etag}`, `${kernelUrl}?from=5`), /^http\/1\.1 304/)
  for (const from of ['', '-1', '1.5', 'x', '9'.repeat(16)]) {
    t.regex(await headOf(`${kernelUrl}?from=${from}`), /^http\/1\.1 400/, from)
  }
})

test('a signed manifest comes from the store, and there is none without it', async (t) => {
  const imageStore = new FakeImageStore()
  const { url } = await start(t, { imageStore })
  imageStore.manifests.set('7', {
    text: 'kateskit-image 1\nversion 7\n',
    signature: 'untrusted comment: x\nRW\n',
  })
  t.is(await curl(`${url}/images/7/manifest`), 'kateskit-image 1\nversion 7\n')
  t.is(await curl(`${url}/images/7/manifest.sig`), 'untrusted comment: x\nRW\n')
  t.regex(await headOf('-I', `${url}/images/7/manifest`), /200 ok[\s\S]*content-length: 27\r/)
  t.regex(await headOf(`${url}/images/8/manifest`), /^http\/1\.1 404/)
})

test('If-None-Match spares the download, and If-Range sends all of a file that is another now', async (t) => {
  const { kernelUrl, files } = await start(t)
  const etag = `"${files.image?.files.get('vmlinuz')?.sha256}"`
  t.regex(await headOf('-H', `If-None-Match: ${etag}`, kernelUrl), /^http\/1\.1 304/)
  t.regex(await headOf('-H', `If-Range: ${etag}`, '-r', '0-9', kernelUrl), /^http\/1\.1 206/)
  t.regex(await headOf('-H', 'If-Range: "another"', '-r', '0-9', kernelUrl), /^http\/1\.1 200/)
})

test('bundles go by digest and loaders by name, and nothing else is a file', async (t) => {
  const { url, files, store } = await start(t)
  const bundle = files.setBundle('a tar')
  t.is(await curl(`${url}/bundles/${bundle.digest}.tar`), 'a tar')
  t.is(await curl(`${url}/loaders/snponly.efi`), 'MZ loader')
  t.is(await curl(`${url}/images/7/ipxe/snponly.efi`), 'MZ loader')
  t.regex(await headOf(`${url}/loaders/snponly.efi`), /content-type: application\/efi/)
  const paths = [
    ...['/', '/images', '/images/', '/images/7', '/images/7/', '/images/8/vmlinuz', '/images/7/vmlinuz/'],
    ...['/images/7/../../etc/passwd', '/images/7/%2e%2e/%2e%2e/etc/passwd', '/images/7//vmlinuz'],
    ...['/loaders/constructor', '/loaders/__proto__', '/loaders/undionly.kpxe', '/loaders/ipxe/snponly.efi'],
    ...[
      `/bundles/${bundle.digest}`,
      `/bundles/${'0'.repeat(64)}.tar`,
      '/bundles/../kit.db',
      '//images/7/vmlinuz',
    ],
  ]
  for (const path of paths) {
    const body = await curl('--path-as-is', `${url}${path}`)
    t.is(JSON.parse(body).error.code, 'not-found', path)
  }
  t.regex(await headOf('-X', 'DELETE', `${url}/images/7/vmlinuz`), /405[\s\S]*allow: get, head/)
  const [sent] = await store.events.list({ limit: 1, afterId: 0 })
  t.is(sent?.kind, 'loader-sent')
})

test('a machine that has kernel and initrd is in the history once', async (t) => {
  const { url, store } = await start(t)
  const heard = new Promise((resolve) => store.events.subscribe(resolve))
  await curl(`${url}/images/7/vmlinuz?mac=52-54-00-00-00-99`, '-o', '/dev/null')
  await curl(`${url}/images/7/vmlinuz?mac=52-54-00-12-34-56`, '-o', '/dev/null')
  await curl('-I', `${url}/images/7/initrd.img?mac=52-54-00-12-34-56`)
  await curl(`${url}/images/7/initrd.img?mac=52-54-00-12-34-56`)
  await heard
  const [event, ...more] = await store.events.list({ limit: 9 })
  t.like(event, { kind: 'kernel-sent', mac: MAC, data: { image: '7' } })
  t.deepEqual(more, [])
})

test('a file that is replaced under way comes from the old one alone, and then from the new one', async (t) => {
  const { kernelUrl, files, out } = await start(t)
  const old = files.image?.files.get('vmlinuz')?.file ?? ''
  const request = get(kernelUrl)
  const [response] = await once(request, 'response')
  response.once('data', () => {
    writeFileSync(out('new'), Buffer.alloc(KERNEL.length, 'n'))
    renameSync(out('new'), old)
  })
  const chunks: Buffer[] = []
  for await (const chunk of response) chunks.push(chunk)
  t.true(KERNEL.equals(Buffer.concat(chunks)))
  t.is((await curl('-r', '0-3', kernelUrl)).toString(), 'nnnn')
})

test('a file that is not as it should be is refused before a byte is sent', async (t) => {
  const { kernelUrl, files } = await start(t)
  truncateSync(files.image?.files.get('vmlinuz')?.file ?? '', 1000)
  const answer = await curl('-i', kernelUrl)
  t.regex(answer, /^HTTP\/1\.1 503/)
  t.notRegex(answer, /etag|accept-ranges/i)
  t.is(JSON.parse(answer.split('\r\n\r\n')[1] ?? '').error.code, 'unavailable')
})

/** Which files of the folder this process has open. */
function openFiles(folder: string): string[] {
  const links = readdirSync('/proc/self/fd').map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`)
    } catch {
      return ''
    }
  })
  return links.filter((link) => link.startsWith(join(folder, '7')))
}

async function ask(port: number, text: string): Promise<Socket> {
  const socket = connect(port, '127.0.0.1')
  socket.on('error', () => {})
  await once(socket, 'connect')
  socket.write(text)
  return socket
}

test('a client that takes no bytes is dropped, one that goes away is noticed, and their files are closed', async (t) => {
  // Long enough for a busy machine to send the first bytes: before them, both would be dropped and nothing seen.
  const { port, files, folder } = await start(t, { stallMs: 5_000 })
  files.setImage('7', { big: Buffer.alloc(20 * MEGABYTE) })
  const stalled = await ask(port, 'GET /images/7/big HTTP/1.1\r\nHost: x\r\n\r\n')
  const leaving = await ask(port, 'GET /images/7/big HTTP/1.1\r\nHost: x\r\n\r\n')
  // By their first bytes both files have been opened.
  const held = once(stalled, 'data').then(() => stalled.pause())
  await Promise.all([held, once(leaving, 'data')])
  leaving.destroy()
  while (openFiles(folder).length > 0) await turn()
  t.pass()
  stalled.destroy()
})

test('a client that sends half a request, or none, is dropped', async (t) => {
  const { port } = await start(t, { stallMs: 200 })
  for (const text of [
    '',
    'GET /healthz HT',
    'POST /v1/machines/525400123456/events HTTP/1.1\r\nContent-Length: 9\r\n\r\n{',
  ]) {
    const socket = await ask(port, text)
    socket.resume()
    // What was sent and not read turns the end into a reset: dropped all the same.
    socket.on('error', () => {})
    await new Promise((resolve) => socket.once('close', resolve))
  }
  t.pass()
})

test('requests sent ahead of their answers are answered in order, and not all read at once', async (t) => {
  const { port, folder } = await start(t)
  const socket = await ask(port, 'GET /images/7/vmlinuz HTTP/1.1\r\nHost: x\r\n\r\n'.repeat(12))
  let most = 0
  let size = 0
  const whole = (KERNEL.length + 100) * 12
  for await (const chunk of socket) {
    size += chunk.length
    most = Math.max(most, openFiles(folder).length)
    if (size > whole) break
  }
  t.is(most, 1)
})

// Serial: the tests beside it would be measured, too. Those of other files still are, hence the generous bound.
test.serial('twenty clients of a large file cost little memory', async (t) => {
  const { url, files } = await start(t)
  const image = files.setImage('7', { big: '' })
  const big = image.files.get('big')
  if (big === undefined) return t.fail()
  truncateSync(big.file, 50 * MEGABYTE)
  files.image = { ...image, files: new Map([['big', { ...big, sizeBytes: 50 * MEGABYTE }]]) }
  let peak = 0
  const before = process.memoryUsage().rss
  const watch = setInterval(() => {
    peak = Math.max(peak, process.memoryUsage().rss)
  }, 5)
  const usage = process.cpuUsage()
  const sizes = await Promise.all(
    Array.from({ length: 20 }, (_, n) =>
      curl(
        '-o',
        '/dev/null',
        '-w',
        '%{size_download}',
        '--limit-rate',
        n % 4 === 0 ? '60M' : '1G',
        `${url}/images/7/big`,
      ),
    ),
  )
  clearInterval(watch)
  const { user, system } = process.cpuUsage(usage)
  t.deepEqual([...new Set(sizes)], [`${50 * MEGABYTE}`])
  t.log(
    `peak +${Math.round((peak - before) / MEGABYTE)} MB, ${((user + system) / 1e6).toFixed(2)} CPU s for 1 GB`,
  )
  t.true(peak - before < 300 * MEGABYTE)
})

const SEEDS = [
  'GET /boot/52-54-00-12-34-56.ipxe?platform=efi HTTP/1.1\r\nHost: x\r\n\r\n',
  'GET /images/7/initrd.img HTTP/1.1\r\nHost: x\r\nRange: bytes=0-3\r\nIf-Range: "x"\r\n\r\n',
  'POST /v1/machines/52-54-00-12-34-56/events HTTP/1.1\r\nHost: x\r\nContent-Length: 42\r\n\r\n{"boot":"b","step":"x","status":"started"}',
  'GET /v1/machines/52-54-00-12-34-56/target?bundle=00&wait=0 HTTP/1.1\r\nHost: x\r\n\r\n',
  'PUT /api/v1/machines/52-54-00-12-34-56/role HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n',
  'GET /api/v1/events?after=0 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer kit_x_y\r\nLast-Event-ID: 4\r\n\r\n',
]
// Mostly characters that get past node's HTTP parser and reach our own code.
const byte = fc.oneof(
  { weight: 20, arbitrary: fc.constantFrom(...Buffer.from('0123456789abcdefXYZ/%?&=."{}[]:,-_~')) },
  { weight: 1, arbitrary: fc.nat(255) },
)
/** Three in four change the path alone: a broken head never gets to our own code. */
const mutated = fc
  .tuple(
    fc.constantFrom(...SEEDS),
    fc.constantFrom('path', 'path', 'path', 'anywhere'),
    fc.array(fc.tuple(fc.nat(200), fc.nat(2), byte), { minLength: 1, maxLength: 3 }),
  )
  .map(([seed, zone, edits]) => {
    const first = zone === 'path' ? seed.indexOf('/') : 0
    let bytes = Buffer.from(seed)
    for (const [where, removed, added] of edits) {
      const end = zone === 'path' ? bytes.indexOf(' HTTP') : bytes.length
      const at = first + (where % (end - first))
      const rest = bytes.subarray(Math.min(at + removed, end))
      bytes = Buffer.concat([bytes.subarray(0, at), Buffer.of(added), rest])
    }
    return bytes
  })

const LAST = 'GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'

test('20,000 mutated requests leave the listener answering', async (t) => {
  const { port, url, desk } = await start(t, { stallMs: 100 })
  desk.plan = { kind: 'local-disk', reason: 'fuzz' }
  const requests = fc.sample(mutated, { numRuns: 20_000, seed: 7 })
  // Several to a connection: what the first leaves behind is read as the head of the next.
  const send = async (batch: Buffer[]) => {
    const socket = connect(port, '127.0.0.1')
    socket.on('error', () => {})
    socket.resume()
    socket.write(Buffer.concat([...batch, Buffer.from(LAST)]))
    await new Promise((resolve) => socket.once('close', resolve)) // a reset is an answer, too
  }
  const batches = Array.from({ length: 2_000 }, (_, n) => requests.slice(n * 10, n * 10 + 10))
  await Promise.all(
    Array.from({ length: 64 }, async () => {
      for (let batch = batches.pop(); batch !== undefined; batch = batches.pop()) await send(batch)
    }),
  )
  t.is(JSON.parse(await curl(`${url}/healthz`)).status, 'ok')
  t.true(desk.calls.length > 100)
})
