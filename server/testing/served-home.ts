// The whole server in a folder of its own, with an image that is none, on a LAN of the test; and machines that come to it.

import { createHash } from 'node:crypto'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

import type { ExecutionContext } from 'ava'

import { type App, createApp } from '#app'
import { loadConfig } from '#config'
import { systemClock } from '#lib/clock.ts'
import type { Log } from '#lib/log.ts'
import { parseMac } from '#lib/mac.ts'

import { curl } from './http-fixture.ts'
import { makeMachineKeys, TestMachine } from './test-machine.ts'

/** Where it answers when the test's interface `br0` is 10.77.0.1. */
export const HTTP = 'http://10.77.0.1:8080'
export const TLS = 'https://10.77.0.1:8443'

async function writeFiles(home: string, files: Readonly<Record<string, string>>): Promise<void> {
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(home, name)), { recursive: true })
    await writeFile(join(home, name), content)
  }
}

/** Gone after the test. Machines boot live. */
export async function makeHome(
  t: ExecutionContext,
  profiles: Readonly<Record<string, string>>,
): Promise<string> {
  const home = await mkdtemp(join(tmpdir(), 'kit-app-'))
  t.teardown(() => rm(home, { recursive: true }))
  const names = ['vmlinuz', 'initrd.img', 'root.squashfs', 'ipxe/snponly.efi']
  const sha256 = (text: string) => createHash('sha256').update(text).digest('hex')
  const files = names.map((name) => ({ name, sizeBytes: name.length, sha256: sha256(name) }))
  const image = { version: '0.1.0', arch: 'amd64', recipeDigest: '0'.repeat(64), sourceDateEpoch: 1, files }
  await writeFiles(home, {
    ...Object.fromEntries(names.map((name) => [`images/0.1.0/${name}`, name])),
    'images/0.1.0/manifest.json': JSON.stringify(image),
    'profiles/defaults/boot': 'live\n',
    ...profiles,
  })
  return home
}

/** Everything that is logged, as a log file would have it. */
function recordLog(lines: string[]): Log {
  const write = (fields: object, message: string) => {
    const values = Object.entries(fields).map(([name, value]) => [
      name,
      value instanceof Error ? `${value.stack} ${value.cause}` : value,
    ])
    lines.push(JSON.stringify([message, values]))
  }
  return { debug: write, info: write, warn: write, error: write }
}

/** Stopped when the test ends, if not before. */
export async function serve(t: ExecutionContext, home: string, log: string[] = []): Promise<App> {
  const overrides = { 'dhcp/interface': 'br0', 'images/import': 'images', 'http/control-socket': 'control' }
  const config = loadConfig({ cwd: home, env: {}, overrides })
  const app = await createApp({ config, version: '1.2.3', clock: systemClock, log: recordLog(log) })
  let stopping: Promise<void> | undefined
  const stop = () => {
    stopping ??= app.stop()
    return stopping
  }
  t.teardown(stop)
  await app.start()
  return { ...app, stop }
}

/** As an admin, over the control socket. */
export async function api<Body>(home: string, path: string, ...args: readonly string[]): Promise<Body> {
  return JSON.parse(await curl(...args, '--unix-socket', join(home, 'control'), `http://kit/api/v1${path}`))
}

export const bootOf = async (mac: string) =>
  /\bkit\.boot=(\S+)/.exec(await curl(`${HTTP}/boot/${mac}.ipxe?platform=efi&buildarch=x86_64`))?.[1] ?? ''

/** Netbooted, paired, checked in. */
export async function startMachine(home: string, mac: string) {
  const boot = await bootOf(mac)
  const ca = await api<{ pem: string; fingerprint: string }>(home, '/ca')
  const machine = new TestMachine({
    ...{ tlsUrl: TLS, ca: ca.pem, caFingerprint: ca.fingerprint },
    ...{ mac: parseMac(mac), keys: await makeMachineKeys() },
  })
  await machine.prove((code) => api(home, `/machines/${mac}/pair`, '-d', JSON.stringify({ code })))
  await machine.say('check-in', { boot, phase: 'starting' })
  return { machine, boot }
}
