// The whole server over HTTPS, in a network of its own: one CA for boot scripts, people and machines.

import { execFile } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

import test, { type ExecutionContext } from 'ava'

import { systemClock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import { silentLog } from '#lib/log.ts'
import { curl } from '#testing/http-fixture.ts'
import { makeImage } from '#testing/image-folder.ts'
import { type Lan, makeLan } from '#testing/lan.ts'
import { enterOwnNetwork } from '#testing/own-network.ts'

import { type App, createApp } from './app.ts'
import { loadConfig } from './config.ts'

let lan: Lan

test.before(async () => {
  await enterOwnNetwork()
  lan = await makeLan('br0', '10.77.0.1/24')
})

test.after.always(() => lan.stop())

async function makeHome(t: ExecutionContext): Promise<string> {
  const home = await mkdtemp(join(tmpdir(), 'kit-app-'))
  t.teardown(() => rm(home, { recursive: true, force: true }))
  await mkdir(join(home, 'images'))
  makeImage(join(home, 'images', '1'), '1')
  const machine = join(home, 'profiles/machines/02-4b-69-74-00-01')
  await mkdir(machine, { recursive: true })
  await mkdir(join(home, 'profiles/roles/worker'), { recursive: true })
  await writeFile(join(machine, 'role'), 'worker\n')
  await writeFile(join(machine, 'boot'), 'live\n')
  return home
}

/** Stopped with the test when it has not been before. */
async function makeApp(t: ExecutionContext, home: string, settings = {}): Promise<App> {
  const overrides = {
    ...{ 'dhcp/interface': 'br0', 'images/import': 'images', 'http/control-socket': 'control' },
    ...settings,
  }
  const config = loadConfig({ cwd: home, env: {}, overrides })
  const app = await createApp({ config, version: '1.2.3', clock: systemClock, log: silentLog })
  let stopping: Promise<void> | undefined
  const stop = () => {
    stopping ??= app.stop()
    return stopping
  }
  t.teardown(stop)
  return { ...app, stop }
}

test.serial(
  'the boot script names the CA and the port that everybody can believe, also after a restart',
  async (t) => {
    const home = await makeHome(t)
    const words = async () => {
      const script = await curl(
        'http://10.77.0.1:8080/boot/02-4b-69-74-00-01.ipxe?platform=efi&buildarch=x86_64',
      )
      const [, ca = ''] = / kit\.ca=(\S+) /.exec(script) ?? []
      const [, tls = ''] = / kit\.tls=(\S+) /.exec(script) ?? []
      return { ca, tls, isShown: script.includes(`echo KatesKit: CA ${ca}\n`) }
    }
    const app = await makeApp(t, home)
    await app.start()
    const { ca, tls, isShown } = await words()
    t.true(isShown)
    t.is(tls, 'https://10.77.0.1:8443')
    const file = join(home, 'ca.pem')
    await writeFile(file, await curl('http://10.77.0.1:8080/v1/ca.pem'))
    t.is(new X509Certificate(await readFile(file)).fingerprint256.replaceAll(':', '').toLowerCase(), ca)
    t.is(await readFile(join(home, 'certs/ca.pem'), 'utf8'), await readFile(file, 'utf8'))
    for (const host of ['10.77.0.1', 'localhost', hostname().toLowerCase()]) {
      const to = ['--connect-to', `${host}:8443:10.77.0.1:8443`, `https://${host}:8443/v1/time`]
      t.regex(await curl('--cacert', file, ...to), /^\d{10}\n$/, host)
    }
    const told = JSON.parse(await curl('--unix-socket', join(home, 'control'), 'http://kit/api/v1/ca'))
    t.deepEqual(told, {
      pem: await readFile(file, 'utf8'),
      fingerprint: ca,
      file: join(home, 'certs/ca.pem'),
    })
    t.deepEqual((await readdir(join(home, 'certs'))).filter((name) => /^ca|tls/.test(name)).sort(), [
      'ca.key',
      'ca.pem',
      'server-tls.pem',
    ])

    await app.stop()
    const again = await makeApp(t, home, { 'http/address': '0.0.0.0', 'https/port': '9443' })
    await again.start()
    t.deepEqual(await words(), { ca, tls: 'https://10.77.0.1:9443', isShown: true })
    for (const address of ['10.77.0.1', '127.0.0.1'])
      t.regex(await curl('--cacert', file, `https://${address}:9443/v1/time`), /^\d{10}\n$/)
  },
)

test.serial(
  'a certificate of one’s own is what its name shows; one that is wrong keeps the server from starting',
  async (t) => {
    const home = await makeHome(t)
    await promisify(execFile)('openssl', [
      ...['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', join(home, 'own.key')],
      ...['-out', join(home, 'own.pem'), '-subj', '/CN=own', '-addext', 'subjectAltName=DNS:kit.example.org'],
    ])
    const files = { 'https/certificate': 'own.pem', 'https/key': 'own.key' }
    const wrong = makeApp(t, home, { ...files, 'https/name': 'other.example.org' })
    await t.throwsAsync(wrong, {
      instanceOf: KitError,
      message: /the certificate is not for other\.example\.org/,
    })
    const app = await makeApp(t, home, { ...files, 'https/name': 'kit.example.org' })
    await app.start()
    const to = ['--connect-to', 'kit.example.org:8443:10.77.0.1:8443', 'https://kit.example.org:8443/v1/time']
    t.regex(await curl('--cacert', join(home, 'own.pem'), ...to), /^\d{10}\n$/)
    t.regex(
      await curl('--cacert', join(home, 'certs/ca.pem'), 'https://10.77.0.1:8443/v1/time'),
      /^\d{10}\n$/,
    )
  },
)
