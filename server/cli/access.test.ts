// Tests of the command line over HTTPS, of tokens and of the audit log: nobody but the server that was meant gets a token.

import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import test, { type ExecutionContext } from 'ava'
import Database from 'better-sqlite3'

import { openCa } from '#certs/ca.ts'
import { makeServerCertificate } from '#certs/server-certificate.ts'
import { systemClock } from '#lib/clock.ts'
import { silentLog } from '#lib/log.ts'
import type { AuditVerdict, TokenInfo } from '#machine/access-ports.ts'
import { cli } from '#testing/cli-fixture.ts'
import { startHttp, startHttpWithToken } from '#testing/http-fixture.ts'

async function withServer(t: ExecutionContext) {
  const server = await startHttp(t)
  return { server, ...cli({ KATESKIT_HTTP_CONTROL_SOCKET: server.socketFile }) }
}

test('token new makes a viewer unless told otherwise, which list shows and revoke ends', async (t) => {
  const { server, run } = await withServer(t)
  const made = JSON.parse((await run('token', 'new', 'ci', '--json')).out) as {
    secret: string
    info: TokenInfo
  }
  t.is(made.info.role, 'viewer')
  const ca = server.authority.fingerprint
  const remote = cli({ KATESKIT_TOKEN: made.secret, KATESKIT_CA: ca })
  t.is((await remote.run('--url', server.tlsUrl, 'machines')).code, 0)
  const refused = await remote.run('--url', server.tlsUrl, 'token', 'list')
  t.is(refused.code, 1)
  t.regex(
    refused.err,
    /needs the role admin, and token ci \([0-9a-f]{12}\) is viewer\n {2}fix: kateskit token new/,
  )
  t.regex((await run('token', 'new', 'boss', '--role', 'admin', '--days', '7')).out, /^Token boss \(admin\)/)
  t.regex(
    (await run('token', 'list')).out,
    /ci +viewer .* s ago +counts\n(.*\n)*.*boss +admin +.* never +ends in 7 d/,
  )
  t.regex((await run('token', 'revoke', made.info.id)).out, /^ci \([0-9a-f]{12}\) is revoked\n$/)
  t.regex((await run('token', 'list')).out, /ci +viewer .* revoked 0 s ago/)
  t.is((await remote.run('--url', server.tlsUrl, 'machines')).code, 1)
  t.is((await run('token', 'revoke', 'nobody')).code, 1)
  t.is((await run('token', 'new', 'x', '--role', 'root')).code, 2)
  t.is((await run('token', 'new', 'x', '--days', 'soon')).code, 2)
})

test('audit shows who did what; verify reads it all and remembers a head', async (t) => {
  const { server, run } = await withServer(t)
  t.is((await run('audit')).out, 'Nothing was done yet.\n')
  await run('token', 'new', 'ci')
  await run('assign', '52:54:00:12:34:56', 'worker')
  t.regex(
    (await run('audit')).out,
    /^ID .*\n1 .* control socket +POST \/tokens +[0-9a-f]{12} +done +name=ci role=viewer\n2 .* PUT \/machines\/:mac\/role /,
  )
  t.regex((await run('audit', '-n', '1')).out, /^ID .*\n2 .*\n$/)
  const whole = await run('audit', 'verify', '--json')
  t.is(whole.code, 0)
  const { head } = JSON.parse(whole.out) as AuditVerdict
  await run('token', 'new', 'other')
  t.regex(
    (await run('audit', 'verify', '--head', head)).out,
    /^3 entries\n.*\nWhole; the remembered head is entry 2\.\n$/,
  )
  const cut = await run('audit', 'verify', '--head', 'f'.repeat(64))
  t.is(cut.code, 1)
  t.regex(cut.err, /no entry has the remembered head/)
  t.is((await run('audit', 'verify', '--head', 'x')).code, 2)

  const database = new Database(join(server.folder, 'kit.db'))
  database.exec("drop trigger audit_no_update; update audit set actor = 'nobody' where id = 2")
  database.close()
  const changed = await run('audit', 'verify')
  t.is(changed.code, 1)
  t.regex(changed.out, /The first that is wrong: 2\n/)
  t.regex(changed.err, /^error: Cannot believe the audit log: entry 2 is not what was written/)
})

test('--url believes the CA that was named, by fingerprint or by file, and says which one it saw', async (t) => {
  const { tlsUrl, tlsPort, caFile, authority, secret } = await startHttpWithToken(t)
  const { fingerprint } = authority
  const run = async (env: NodeJS.ProcessEnv, ...args: string[]) =>
    cli({ KATESKIT_TOKEN: secret, ...env }).run('--url', tlsUrl, ...args)
  const colons = fingerprint.toUpperCase().match(/../g)?.join(':') ?? ''
  for (const ca of [fingerprint, colons, caFile]) {
    t.is((await run({ KATESKIT_CA: ca }, 'machines')).code, 0, ca)
    t.is((await run({ KATESKIT_CA: 'f'.repeat(64) }, '--ca', ca, 'machines')).code, 0, ca)
  }
  const unknown = await run({}, 'machines')
  t.is(unknown.code, 1)
  t.regex(unknown.err, /^error: Cannot trust https:/)
  t.true(unknown.err.includes(`it shows the CA ${fingerprint}\n`))
  t.true(unknown.err.includes(`export KATESKIT_CA=${fingerprint}`))
  const wrong = await run({ KATESKIT_CA: 'f'.repeat(64) }, 'machines')
  t.is(wrong.code, 1)
  t.true(wrong.err.includes(`it shows the CA ${fingerprint}, not ${'f'.repeat(64)}`))
  t.is((await run({ KATESKIT_CA: '/nowhere.pem' }, 'machines')).code, 2)
  t.is((await run({ KATESKIT_CA: 'package.json' }, 'machines')).code, 2)
  const other = await cli({ KATESKIT_CA: fingerprint }).run(
    '--url',
    `https://127.0.0.2:${tlsPort}`,
    'machines',
  )
  t.is(other.code, 1)
  for (const nobody of ['https://127.0.0.1:1', 'https://no-such-host.invalid']) {
    t.regex((await cli().run('--url', nobody, 'machines')).err, /^error: Cannot reach the server/)
  }
})

test('a server in between gets no token, whatever it shows', async (t) => {
  const { authority, secret, headers } = await startHttpWithToken(t)
  const directory = mkdtempSync(join(tmpdir(), 'kit-other-ca-'))
  t.teardown(() => rmSync(directory, { recursive: true, force: true }))
  const ca = await openCa({ directory, clock: systemClock, log: silentLog })
  const here = { hosts: ['localhost'], addresses: ['127.0.0.1'] }
  const own = await makeServerCertificate(ca, here, Date.now())
  const elsewhere = await makeServerCertificate(ca, { hosts: ['kit.example'], addresses: [] }, Date.now())
  const caFile = join(directory, 'other.pem')
  writeFileSync(caFile, ca.pem)
  const heard: string[] = []
  const listen = async (material: typeof own, extra = '') => {
    const server = createServer({ key: material.key, cert: material.chain + extra }, (request, response) => {
      heard.push(JSON.stringify([request.url, request.headers]))
      // It knows what the real one shows.
      response.end(request.url === '/v1/ca.pem' ? authority.pem : '{"machines":[]}')
    })
    t.teardown(() => server.close())
    await once(server.listen(0, '127.0.0.1'), 'listening')
    return `https://127.0.0.1:${(server.address() as AddressInfo).port}`
  }
  const run = (url: string, pin?: string) =>
    cli({ KATESKIT_TOKEN: secret, ...(pin && { KATESKIT_CA: pin }) }).run('--url', url, 'machines')
  const pretender = await listen(own)
  const copyist = await listen(own, authority.pem) // the real CA's certificate in its chain
  for (const [url, pin] of [
    [pretender, authority.fingerprint],
    [pretender, undefined],
    [copyist, authority.fingerprint],
    [await listen(elsewhere), caFile], // signed by whom we believe, for another name
  ] as const) {
    t.is((await run(url, pin)).code, 1, `${url} ${pin}`)
  }
  t.false(heard.some((text) => text.includes('authorization') || text.includes(headers.authorization)))
  t.is((await run(await listen(own, ca.pem), caFile)).code, 0, 'and it is its certificate that counts')
})
