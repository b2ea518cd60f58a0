// Let's Encrypt's own test server, Debian's pebble, with the name server that tells it where every name leads: here.

import { type ChildProcess, spawn } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { getCACertificates, setDefaultCACertificates } from 'node:tls'

import type { ExecutionContext } from 'ava'

import { makeCertificate } from '#certs/x509.ts'

import { linesOf } from './lan.ts'
import { testTls } from './tls-fixture.ts'

export const PEBBLE_DIRECTORY = 'https://127.0.0.1:14000/dir'
const MANAGEMENT = 'https://127.0.0.1:15000'
const DNS = '127.0.0.1:8053'

export interface Pebble {
  /** PEM: what it signs with, made anew at each start. */
  root(): Promise<string>
  stop(): Promise<void>
}

/**
 * Call `enterOwnNetwork` first: its ports are fixed. It asks for challenges at `httpPort`, and this thread believes its
 * certificate from then on.
 */
export async function startPebble(
  t: ExecutionContext,
  { folder, httpPort }: { readonly folder: string; readonly httpPort: number },
): Promise<Pebble> {
  const { ca } = await testTls()
  const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const certificate = makeCertificate(
    {
      commonName: 'pebble',
      publicKey: publicKey.export({ type: 'spki', format: 'der' }),
      fromMs: Date.now() - 60_000,
      untilMs: Date.now() + 3_600_000,
      use: { kind: 'server', names: ['localhost'], addresses: ['127.0.0.1'] },
    },
    ca,
  )
  setDefaultCACertificates([...getCACertificates('default'), ca.pem])
  await writeFile(join(folder, 'pebble.pem'), certificate)
  await writeFile(join(folder, 'pebble.key'), privateKey.export({ type: 'pkcs8', format: 'pem' }))
  const config = {
    listenAddress: '127.0.0.1:14000',
    managementListenAddress: '127.0.0.1:15000',
    ...{ certificate: join(folder, 'pebble.pem'), privateKey: join(folder, 'pebble.key') },
    ...{ httpPort, tlsPort: 1, ocspResponderURL: '', externalAccountBindingRequired: false },
  }
  await writeFile(join(folder, 'pebble.json'), JSON.stringify({ pebble: config }))
  const names = run('pebble-challtestsrv', [
    ...['-defaultIPv4', '127.0.0.1', '-defaultIPv6', '', '-dns01', DNS, '-management', '127.0.0.1:8055'],
    ...['-http01', '', '-https01', '', '-tlsalpn01', ''],
  ])
  const pebble = run('pebble', ['-config', join(folder, 'pebble.json'), '-dnsserver', DNS])
  const stop = async () => {
    await Promise.all([names, pebble].map(end))
  }
  t.teardown(stop)
  await linesOf(names).next(/Starting management server/)
  await linesOf(pebble).next(/ACME directory available/)
  return { stop, root: async () => (await fetch(`${MANAGEMENT}/roots/0`)).text() }
}

function run(command: string, args: readonly string[]): ChildProcess {
  const env = { ...process.env, PEBBLE_VA_NOSLEEP: '1', PEBBLE_WFE_NONCEREJECT: '20' }
  return spawn('setpriv', ['--pdeathsig', 'KILL', command, ...args], { env })
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill('SIGKILL')
  await once(child, 'exit')
}
