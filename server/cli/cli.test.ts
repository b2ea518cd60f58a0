import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, symlink } from 'node:fs/promises'
import { createServer as createHttpServer } from 'node:http'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { promisify } from 'node:util'

import test, { type ExecutionContext } from 'ava'

import { parseIpv4 } from '#lib/ipv4.ts'
import { createJsonHttp, errorFromAnswer } from '#lib/json-http.ts'
import { parseMac } from '#lib/mac.ts'
import { SseParser } from '#lib/sse.ts'
import { formatTable } from '#lib/text-table.ts'
import { cli, PROJECT } from '#testing/cli-fixture.ts'
import { startHttp } from '#testing/http-fixture.ts'

import { Interrupted } from './cli-io.ts'
import { renderEvent, renderOverlay } from './render.ts'
import { runCommandLine } from './run.ts'
import { hasCapabilities } from './serve-preflight.ts'

const MAC = parseMac('52:54:00:12:34:56')

async function withServer(t: ExecutionContext) {
  const server = await startHttp(t)
  return { server, ...cli({ KATESKIT_HTTP_CONTROL_SOCKET: server.socketFile }) }
}

const USAGE_CASES: readonly [readonly string[], number, RegExp][] = [
  [['--help'], 0, /^$/],
  [['nonsense'], 2, /unknown command 'nonsense'/],
  [['--url', 'kit', 'machines'], 2, /Cannot use --url "kit"/],
  [['--url', 'http://kit:8080', 'machines'], 2, /others could read the token\n {2}fix: write it as https:/],
  [['lab', '--machines', 'arm'], 2, /Cannot make the machines "arm"\n {2}fix: name up to 8/],
  [['lab', '--port', '-1'], 2, /port/],
  [['lab', '--memory', '12'], 2, /Cannot use --memory "12"\n {2}fix: give a whole number from 512/],
  [['serve'], 2, /Cannot serve a network: no interface is set\n {2}fix: name one with --interface/],
  [['serve', '--interface', 'none0'], 1, /Cannot serve none0: it is not there/],
  [['setup', '--for', 'lab'], 1, /must be run as root.*\n {2}fix: sudo npm start/],
  [
    ['start', '--interface', 'eth9', '--until', 'ready'],
    2,
    /Cannot use --until or --json while serving eth9/,
  ],
]

for (const [args, code, complaint] of USAGE_CASES) {
  test(`runCommandLine() of "${args.join(' ')}" exits with ${code}`, async (t) => {
    const result = await cli().run(...args)
    t.is(result.code, code)
    t.regex(result.err, complaint)
  })
}

test('runCommandLine() says how to start a server when none answers', async (t) => {
  const socket = join(tmpdir(), 'no-such-kateskit.sock')
  const { code, err } = await cli({ KATESKIT_HTTP_CONTROL_SOCKET: socket }).run('machines')
  t.is(code, 1)
  t.regex(err, /^error: Cannot reach the server: nothing answers at .*\n {2}fix: start it with npm start/)
})

test('runCommandLine() exits as shells do when it was interrupted', async (t) => {
  const signal = AbortSignal.abort(new Interrupted('SIGTERM'))
  t.is((await cli({}, { signal }).run('setup', '--for', 'lab')).code, 143)
})

test('events prints the past, then follows until it is interrupted', async (t) => {
  const { server, io, printed } = await withServer(t)
  const { events } = server.store
  await events.append({ kind: 'machine-discovered', mac: MAC, message: 'first' })
  const controller = new AbortController()
  const seen = Promise.withResolvers<void>()
  const following = runCommandLine(['events', '--follow', MAC], {
    ...io,
    signal: controller.signal,
    stdout: {
      write(text) {
        printed.out += text
        if (text.includes('first')) void events.append({ kind: 'dhcp-offered', mac: MAC, message: 'second' })
        if (text.includes('second')) seen.resolve()
      },
    },
  })
  await seen.promise
  controller.abort(new Interrupted('SIGINT'))
  t.is(await following, 0)
  t.regex(printed.out, /52:54:00:12:34:56 {2}machine-discovered +first\n.*dhcp-offered +second\n$/)
})

test('config explain prints each value, its source, and the problems', async (t) => {
  const { run } = await withServer(t)
  t.regex(
    (await run('config', 'explain')).out,
    /KEY .*\nhttp\/port +8080 +default\n\nProblems:\n {2}roles\/worker/,
  )
  t.regex((await run('config', 'explain', MAC)).out, /hostname +kit-of-52:54:00:12:34:56 +default/)
})

test('leases prints who has which address', async (t) => {
  const { server, run } = await withServer(t)
  const expiresMs = Date.now() + 600_000
  await server.store.leases.put({
    ip: parseIpv4('10.77.0.100'),
    clientKey: 'k',
    mac: MAC,
    expiresMs,
    kind: 'leased',
  })
  t.regex((await run('leases')).out, /10\.77\.0\.100 {2}52:54:00:12:34:56 {2}- +leased {2}in 10 min/)
})

test('renderEvent() puts the log of a failed step below its line', (t) => {
  const event = { id: 1, atMs: 0, kind: 'step-failed', message: 'no image', data: { log: 'a\nb\n' } } as const
  const [line = '', ...log] = renderEvent(event)
  t.regex(line, /^1970-01-01 00:00:00 {2}- {18}step-failed +no image$/)
  t.deepEqual(log, ['    a', '    b'])
})

test('renderOverlay() shows where each file comes from and what it hides', (t) => {
  const owner = { uid: 0, gid: 0 }
  const lines = renderOverlay('d1', [
    { path: '/etc/motd', layer: 'roles/worker', kind: 'file', mode: '0644', ...owner, hides: ['defaults'] },
    { path: '/etc/issue', layer: 'defaults', kind: 'delete', mode: '', ...owner, hides: [] },
  ])
  t.deepEqual(lines, [
    'MODE     OWNER  PATH        FROM          HIDES',
    '-0644    0:0    /etc/motd   roles/worker  defaults',
    'deleted  0:0    /etc/issue  defaults',
    '',
    'Bundle d1',
  ])
})

test('hasCapabilities() reads CapEff', (t) => {
  t.true(hasCapabilities('CapPrm:\t0\nCapEff:\t000001ffffffffff\n'))
  t.true(hasCapabilities('CapEff:\t0000000000002400\n'))
  t.false(hasCapabilities('CapEff:\t0000000000000400\n'))
  t.false(hasCapabilities(''))
})

test('formatTable() makes every column as wide as its widest cell', (t) => {
  t.deepEqual(
    formatTable(
      ['A', 'B'],
      [
        ['long', 'x'],
        ['', 'y'],
      ],
    ),
    ['A     B', 'long  x', '      y'],
  )
})

test('SseParser puts messages together however they are cut', (t) => {
  const stream = ': hello\n\nid: 7\r\nevent: dhcp-offered\r\ndata: {"a":\ndata: 1}\n\ndata: last\n\n'
  for (let cut = 0; cut <= stream.length; cut += 1) {
    const parser = new SseParser()
    t.deepEqual(
      [...parser.push(stream.slice(0, cut)), ...parser.push(stream.slice(cut))],
      [
        { id: '7', event: 'dhcp-offered', data: '{"a":\n1}' },
        { id: undefined, event: 'message', data: 'last' },
      ],
    )
  }
})

test('request() waits as long as it is told', async (t) => {
  const server = createHttpServer((_request, response) => void setTimeout(() => response.end('{}'), 300))
  t.teardown(() => server.close())
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const http = createJsonHttp({
    kind: 'url',
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
  })
  await t.throwsAsync(http.request('GET', '/', undefined, { timeoutMs: 50 }), { code: 'unavailable' })
  t.deepEqual(await http.request('GET', '/', undefined, { timeoutMs: 20_000 }), {})
})

test('errorFromAnswer() keeps code, message and fix, and makes do without them', (t) => {
  const known = errorFromAnswer(404, { error: { code: 'not-found', message: 'Cannot find', fix: 'look' } })
  t.like(known, { code: 'not-found', message: 'Cannot find', fix: 'look' })
  t.like(errorFromAnswer(502, undefined), { code: 'internal', message: 'The server answered 502' })
})

test('console carries keys and words until Ctrl-]', async (t) => {
  const folder = await temporaryFolder(t)
  const heard: string[] = []
  const machine = createServer((socket) => {
    socket.write('login: ')
    socket.on('data', (chunk) => heard.push(chunk.toString()))
  }).listen(join(folder, 'uefi.console'))
  await once(machine, 'listening')
  const { io, printed } = cli()
  const keys = new PassThrough()
  const stdout = {
    write(text: string) {
      printed.out += text
      keys.write('root\r')
      keys.write('\x1d')
    },
  }
  t.is(await runCommandLine(['console', '--state', folder, 'uefi'], { ...io, stdin: keys, stdout }), 0)
  t.is(printed.out, 'login: ')
  machine.close()
  await once(machine, 'close')
  t.deepEqual(heard, ['root\r'])
})

test('console says which folder it has looked in', async (t) => {
  const folder = await temporaryFolder(t)
  const { code, err } = await cli().run('console', '--state', folder, 'bios')
  t.is(code, 1)
  t.true(err.startsWith(`error: Cannot reach the console of bios: no such machine runs in ${folder}\n`))
})

async function temporaryFolder(t: ExecutionContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'kateskit-test-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  return folder
}

test('ca prints what others compare, and where the certificate lies', async (t) => {
  const { socketFile, authority, caFile } = await startHttp(t)
  const { run } = cli({ KATESKIT_HTTP_CONTROL_SOCKET: socketFile })
  const out = `fingerprint  ${authority.fingerprint}\ncertificate  ${caFile}\n`
  t.deepEqual(await run('ca'), { code: 0, out, err: '' })
  const { out: json } = await run('ca', '--json')
  const { pem, fingerprint } = authority
  t.deepEqual(JSON.parse(json), { pem, fingerprint, file: caFile })
})

test('bin/kateskit works through a symbolic link from another directory', async (t) => {
  const folder = await temporaryFolder(t)
  await symlink(join(PROJECT, 'bin/kateskit'), join(folder, 'kit'))
  const { stdout } = await promisify(execFile)(join(folder, 'kit'), ['--version'], { cwd: folder })
  t.regex(stdout, /^\d+\.\d+\.\d+\n$/)
})
