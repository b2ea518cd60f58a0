// The main job as its users run it: npm start, from power-on to running machines, and nothing left behind.

import { spawn } from 'node:child_process'
import { mkdtemp, readdir, readFile, readlink, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import test from 'ava'

import { BOOT_TIMEOUT_MS, PROJECT } from './test-lan.ts'

const PHASES = ['firmware', 'loader', 'kernel', 'image', 'system', 'total']

interface MachineLine {
  readonly kind: string
  readonly name: string
  readonly ready: boolean
  readonly role: string
  readonly seconds: Readonly<Record<string, number>>
}

test('npm start ends well when every machine has arrived, and leaves nothing behind', async (t) => {
  const state = await mkdtemp(join(tmpdir(), 'kit-'))
  t.teardown(() => rm(state, { recursive: true, force: true }))
  const before = await whatIsThere()
  const { exitCode, output, errors } = await npmStart([
    ...['--until', 'ready', '--json', '--timeout', String(BOOT_TIMEOUT_MS / 1000)],
    ...['--port', '0', '--state', state],
  ])
  if (exitCode !== 0) t.log(`${output}\n${errors}`)
  t.is(exitCode, 0)
  const lines = output.split('\n').filter((line) => line.startsWith('{'))
  const machines = lines
    .map((line) => JSON.parse(line) as MachineLine)
    .filter(({ kind }) => kind === 'machine')
  t.deepEqual(
    machines.map(({ name, ready, role }) => ({ name, ready, role })),
    [
      { name: 'uefi', ready: true, role: 'control-plane' },
      { name: 'bios', ready: true, role: 'worker' },
    ],
  )
  for (const { name, seconds } of machines) {
    t.deepEqual(Object.keys(seconds), PHASES)
    t.log(name, seconds)
  }
  t.deepEqual(await whatIsThere(), before)
  t.deepEqual(await processesNaming(state), [])
})

function npmStart(
  args: readonly string[],
): Promise<{ exitCode: number | null; output: string; errors: string }> {
  const child = spawn('npm', ['start', '--silent', '--', ...args], {
    cwd: PROJECT,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  let errors = ''
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString()
  })
  child.stderr.on('data', (chunk: Buffer) => {
    errors += chunk.toString()
  })
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (exitCode) => resolve({ exitCode, output, errors }))
  })
}

/** The mounts of this host and its network namespaces with a process in them. */
async function whatIsThere(): Promise<{ mounts: string; namespaces: readonly string[] }> {
  const namespaces = await Promise.all(
    (await processes()).map((pid) => readlink(`/proc/${pid}/ns/net`).catch(() => '')),
  )
  return {
    mounts: await readFile('/proc/self/mounts', 'utf8'),
    namespaces: [...new Set(namespaces)].filter(Boolean).sort(),
  }
}

async function processesNaming(text: string): Promise<readonly string[]> {
  const commands = (await processes()).map((pid) => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => ''))
  return (await Promise.all(commands)).filter((command) => command.includes(text))
}

async function processes(): Promise<readonly string[]> {
  return (await readdir('/proc')).filter((name) => /^\d+$/.test(name))
}
