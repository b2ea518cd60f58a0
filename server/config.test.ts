// Tests of the server's own settings.

import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

import test, { type ExecutionContext } from 'ava'

import { systemClock } from '#lib/clock.ts'
import { parseIpv4, parseSubnet } from '#lib/ipv4.ts'
import { silentLog } from '#lib/log.ts'
import { compareDocsTable, docsCell } from '#testing/docs-table.ts'

import { ConfigError, type LoadOptions, loadConfig } from './config.ts'
import { checkNetwork } from './config-checks.ts'
import type { ConfigRule } from './config-rule.ts'
import { CONFIG_KEYS, CONFIG_TABLE, variableOf } from './config-table.ts'
import { type ConfigChange, watchConfig } from './config-watch.ts'

/** A working directory with flat files in `config/`. */
async function makeFiles(t: ExecutionContext, files: Readonly<Record<string, string | Uint8Array>> = {}) {
  const cwd = await mkdtemp(join(tmpdir(), 'kit-config-'))
  t.teardown(() => rm(cwd, { recursive: true }))
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(cwd, name)), { recursive: true })
    await writeFile(join(cwd, name), content)
  }
  return cwd
}

function problemsOf(options: LoadOptions): readonly string[] {
  try {
    loadConfig(options)
  } catch (error) {
    if (error instanceof ConfigError)
      return error.problems.map(({ source, message }) => `${source}: ${message}`)
    throw error
  }
  return []
}

test('loadConfig() gives every default when nothing is set', async (t) => {
  const cwd = await makeFiles(t)
  const { values } = loadConfig({ cwd, env: { HOME: '/home/kit' } })
  t.is(values['dhcp/interface'], undefined)
  t.is(values['dhcp/mode'], 'proxy')
  t.is(values['dhcp/lease-seconds'], 3600)
  t.deepEqual(values['dhcp/dns'], [])
  t.is(values['tftp/port'], 69)
  t.is(values['http/extra-socket'], undefined)
  t.is(values['mdns/enabled'], true)
  t.is(values['profiles/directory'], join(cwd, 'profiles'))
  t.is(values['images/import'], '/home/kit/.cache/kateskit/images')
  t.is(
    loadConfig({ cwd, env: { XDG_CACHE_HOME: '/cache' } }).values['images/import'],
    '/cache/kateskit/images',
  )
})

test('loadConfig() takes command line over variable over named file over flat file', async (t) => {
  const cwd = await makeFiles(t, { 'config/http/port': '1\n', 'elsewhere/port': ' 2 \n' })
  const file = { KATESKIT_HTTP_PORT_FILE: 'elsewhere/port' }
  const variable = { ...file, KATESKIT_HTTP_PORT: '3' }
  const rows = [
    { options: { env: {} }, port: 1, source: join(cwd, 'config/http/port') },
    { options: { env: file }, port: 2, source: `${join(cwd, 'elsewhere/port')} (KATESKIT_HTTP_PORT_FILE)` },
    { options: { env: variable }, port: 3, source: 'KATESKIT_HTTP_PORT' },
    { options: { env: variable, overrides: { 'http/port': '4' } }, port: 4, source: 'command line' },
  ]
  for (const { options, port, source } of rows) {
    const config = loadConfig({ cwd, ...options })
    t.is(config.values['http/port'], port)
    t.deepEqual(
      config.explain().find(({ key }) => key === 'http/port'),
      { key: 'http/port', value: String(port), source },
    )
  }
})

test('loadConfig() reads each shape', async (t) => {
  const cwd = await makeFiles(t, {
    'config/dhcp/mode': 'server\n',
    'config/dhcp/pool': '10.77.0.100 - 10.77.0.199\n',
    'config/dhcp/dns': '10.77.0.1\n9.9.9.9\n',
    'config/dhcp/domain': 'home.arpa',
    'config/state/directory': '~/state',
    'config/README.md': 'notes are no settings',
    'config/dhcp/mode~': 'neither are backups',
  })
  const { values } = loadConfig({ cwd, env: { HOME: '/home/kit', KATESKIT_TFTP_SINGLE_PORT: 'true' } })
  t.deepEqual(values['dhcp/pool'], { first: parseIpv4('10.77.0.100'), last: parseIpv4('10.77.0.199') })
  t.deepEqual(values['dhcp/dns'], [parseIpv4('10.77.0.1'), parseIpv4('9.9.9.9')])
  t.is(values['tftp/single-port'], true)
  t.is(values['state/directory'], '/home/kit/state')
})

test('loadConfig() tells every problem at once', async (t) => {
  const cwd = await makeFiles(t, {
    'config/dhcp/mode': 'prxy',
    'config/dhcp/interfce': 'eth0',
    'config/dhcp/pool': '10.0.0.9-10.0.0.1',
    'config/log/level': '',
    'config/http/port': Uint8Array.of(0xff, 0xfe),
    'config/mdns/name/x': 'a folder in the place of a file',
    'config/dhcp/dns': 'x'.repeat(70_000),
  })
  const env = {
    KATESKIT_TFTP_PORT: '70000',
    KATESKIT_DHCP_LEASE_SECONDS: '59',
    KATESKIT_IMAGE_MIRROR_FILE: 'nowhere',
    KATESKIT_DHCP_ROUTR: '10.0.0.1',
    KATESKIT_OTHER_PROGRAM: 'is none of our business',
  }
  const problems = problemsOf({ cwd, env })
  const expected = [
    /config\/dhcp\/interfce: .*did you mean dhcp\/interface\?/,
    /config\/mdns\/name\/x: .*no such setting/,
    /KATESKIT_DHCP_ROUTR: .*did you mean KATESKIT_DHCP_ROUTER\?/,
    /config\/dhcp\/dns: Cannot read dhcp\/dns: it is too large: 70000 bytes/,
    /config\/http\/port: Cannot read http\/port: it is not UTF-8 text/,
    /config\/mdns\/name: Cannot read mdns\/name: it is not a regular file/,
    /nowhere \(KATESKIT_IMAGE_MIRROR_FILE\): Cannot read image\/mirror: ENOENT/,
    /config\/dhcp\/mode: Cannot use dhcp\/mode: "prxy"; it must be proxy, server or off/,
    /config\/dhcp\/pool: Cannot use dhcp\/pool: "10.0.0.9-10.0.0.1"; it must be two IPv4 addresses/,
    /KATESKIT_DHCP_LEASE_SECONDS: .*"59"; it must be a number of seconds from 60/,
    /KATESKIT_TFTP_PORT: Cannot use tftp\/port: "70000"; it must be a port number/,
    /config\/log\/level: Cannot use log\/level: empty; it must be debug, info/,
  ]
  t.is(problems.length, expected.length, problems.join('\n'))
  for (const [index, pattern] of expected.entries()) t.regex(problems[index] ?? '', pattern)
})

test('loadConfig() wants a pool in server mode', async (t) => {
  const cwd = await makeFiles(t)
  const [problem, ...others] = problemsOf({ cwd, env: {}, overrides: { 'dhcp/mode': 'server' } })
  t.deepEqual(others, [])
  t.regex(problem ?? '', /config\/dhcp\/pool or KATESKIT_DHCP_POOL: .*dhcp\/mode is server/)
})

test('loadConfig() wants one whole source for the certificate of https/name, and a port of its own for HTTPS', async (t) => {
  const cwd = await makeFiles(t)
  const own = { 'https/name': 'kit.example.org', 'https/certificate': 'a.pem', 'https/key': 'a.key' }
  const acme = { 'https/name': 'kit.example.org', 'https/acme-directory': 'https://ca.example.org/dir' }
  const rows: [overrides: Record<string, string>, problem: RegExp | undefined][] = [
    [own, undefined],
    [acme, undefined],
    [{ ...acme, 'https/acme-email': 'kate@example.org' }, undefined],
    [{ ...own, 'https/key': '' }, /Cannot use https\/certificate .*a\.pem: https\/key is not set/],
    [{ ...own, 'https/certificate': '' }, /Cannot use https\/key .*a\.key: https\/certificate is not set/],
    [{ ...own, ...acme }, /Cannot use ACME beside https\/certificate/],
    [{ ...own, 'https/name': '' }, /without https\/name/],
    [{ ...acme, 'https/name': '' }, /without https\/name/],
    [{ 'https/name': 'kit' }, /neither https\/certificate nor https\/acme-directory is set/],
    [{ ...acme, 'https/acme-directory': 'http://ca.example.org' }, /must be a URL \(https:\/\/\)/],
    [{ ...acme, 'https/acme-email': 'kate' }, /must be an e-mail address/],
    [{ 'https/port': '8080' }, /Cannot serve HTTPS on 8080: http\/port is the same/],
  ]
  for (const [overrides, problem] of rows) {
    const problems = problemsOf({ cwd, env: {}, overrides })
    if (problem === undefined) t.deepEqual(problems, [])
    else t.regex(problems.join('\n'), problem)
  }
})

test('loadConfig() wants the directory when KATESKIT_CONFIG names it', async (t) => {
  const cwd = await makeFiles(t, { 'etc/log/level': 'debug' })
  t.is(loadConfig({ cwd, env: { KATESKIT_CONFIG: 'etc' } }).values['log/level'], 'debug')
  t.regex(
    problemsOf({ cwd, env: { KATESKIT_CONFIG: 'gone' } })[0] ?? '',
    /gone \(KATESKIT_CONFIG\): Cannot read/,
  )
})

test('checkNetwork() compares pool and router with the subnet of the interface', async (t) => {
  const cwd = await makeFiles(t)
  const rows: { pool: string; router?: string; problems: RegExp[] }[] = [
    { pool: '10.77.0.100-10.77.0.199', router: '10.77.0.254', problems: [] },
    { pool: '10.78.0.1-10.78.0.9', problems: [/not inside 10.77.0.0\/24 of eth0/] },
    { pool: '10.77.0.250-10.77.0.255', problems: [/broadcast address/] },
    {
      pool: '10.77.0.1-10.77.0.9',
      router: '10.1.0.1',
      problems: [/server's own address/, /router 10.1.0.1/],
    },
  ]
  const network = {
    networkInterface: 'eth0',
    subnet: parseSubnet('10.77.0.0/24'),
    ip: parseIpv4('10.77.0.1'),
  }
  for (const { pool, router, problems } of rows) {
    const overrides = { 'dhcp/mode': 'server', 'dhcp/pool': pool, ...(router && { 'dhcp/router': router }) }
    const found = checkNetwork(loadConfig({ cwd, env: {}, overrides }), network)
    t.is(found.length, problems.length, JSON.stringify(found))
    for (const [index, pattern] of problems.entries()) t.regex(found[index]?.message ?? '', pattern)
  }
})

test('checkNetwork() refuses to serve on a port that no boot script could name', async (t) => {
  const cwd = await makeFiles(t)
  const network = {
    networkInterface: 'eth0',
    subnet: parseSubnet('10.77.0.0/24'),
    ip: parseIpv4('10.77.0.1'),
  }
  const [problem] = checkNetwork(loadConfig({ cwd, env: { KATESKIT_HTTP_PORT: '0' } }), network)
  t.like(problem, { key: 'http/port', source: 'KATESKIT_HTTP_PORT' })
})

test('watchConfig() tells what changed, and what takes a restart', async (t) => {
  const cwd = await makeFiles(t, { 'config/log/level': 'info' })
  const load = () => loadConfig({ cwd, env: {} })
  let heard: (told: ConfigChange | ConfigError) => void = () => {}
  const next = () => new Promise<ConfigChange | ConfigError>((resolve) => (heard = resolve))
  const watch = watchConfig({
    config: load(),
    load,
    onChange: (change) => heard(change),
    onBroken: (error) => heard(error),
    clock: systemClock,
    log: silentLog,
  })
  t.teardown(() => watch.stop())
  await watch.start()

  let told = next()
  await writeFile(join(cwd, 'config/log/level'), 'debug\n')
  t.like(await told, { live: ['log/level'], needRestart: [] })

  told = next()
  await writeFile(join(cwd, 'config/log/level'), 'loud\n')
  t.true((await told) instanceof ConfigError)

  told = next()
  await writeFile(join(cwd, 'config/log/level'), 'debug\n')
  await mkdir(join(cwd, 'config/http'))
  await writeFile(join(cwd, 'config/http/port'), '8081\n')
  t.like(await told, { live: [], needRestart: ['http/port'] })
})

test('docs/configuration.md lists every setting of the server', async (t) => {
  const rows = CONFIG_KEYS.map((key) => {
    const rule: ConfigRule<unknown> = CONFIG_TABLE[key]
    const fallback = typeof rule.fallback === 'string' && rule.fallback !== '' ? `\`${rule.fallback}\`` : ''
    return [
      `\`${key}\``,
      `\`${variableOf(key)}\``,
      rule.meaning,
      rule.expected,
      rule.fallbackText ?? fallback,
    ]
  })
  const header = ['file', 'variable', 'meaning', 'value', 'default']
  const table = [header, ...rows.map((row) => row.map(docsCell))]
  const page = new URL('../docs/configuration.md', import.meta.url)
  const { inDocs, inCode } = await compareDocsTable(page, 'settings', table)
  t.is(inDocs, inCode)
})
