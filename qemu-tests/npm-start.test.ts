// The main job as its users run it: npm start, from power-on to running machines, and nothing left behind.

import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import test from 'ava'

import { BOOT_TIMEOUT_MS } from './event-watch.ts'
import { PROJECT } from './test-lan.ts'

/** In the environment of everything that a run starts, however deep: other work on this machine does not count. */
const MARK = 'NPM_START_TEST'

const PHASES = ['firmware', 'loader', 'kernel', 'pairing', 'disk', 'image', 'system', 'total']

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
  const mark = `${MARK}=${randomUUID()}`
  const { exitCode, output, errors, whileRunning } = await npmStart(
    [
      ...['--until', 'ready', '--json', '--timeout', String(BOOT_TIMEOUT_MS / 1000)],
      ...['--port', '0', '--state', state],
    ],
    mark,
  )
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
  t.true(
    whileRunning.some((command) => command.startsWith('qemu-system-')),
    'the mark is on what the lab starts',
  )
  t.deepEqual(processesMarked(mark), [], 'a namespace without a name is gone with its last process')
  t.false((await readFile('/proc/self/mounts', 'utf8')).includes(state))
})

interface Ended {
  readonly exitCode: number | null
  readonly output: string
  readonly errors: string
  /** The marked processes when the machines were on. */
  readonly whileRunning: readonly string[]
}

function npmStart(args: readonly string[], mark: string): Promise<Ended> {
  const [name = '', value] = mark.split('=')
  const child = spawn('npm', ['start', '--silent', '--', ...args], {
    cwd: PROJECT,
    env: { ...process.env, [name]: value, KATESKIT_KUBERNETES_SOURCE: 'none' },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  let whileRunning: readonly string[] = []
  let errors = ''
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString()
    if (whileRunning.length === 0 && output.includes('"phase"')) whileRunning = processesMarked(mark)
  })
  child.stderr.on('data', (chunk: Buffer) => {
    errors += chunk.toString()
  })
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (exitCode) => resolve({ exitCode, output, errors, whileRunning }))
  })
}

/** At one moment: nothing may end between the look at one process and the next. */
function processesMarked(mark: string): readonly string[] {
  const read = (file: string) => {
    try {
      return readFileSync(file, 'utf8')
    } catch {
      return '' // it has ended meanwhile
    }
  }
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name))
  return pids
    .filter((pid) => read(`/proc/${pid}/environ`).includes(mark))
    .map((pid) => read(`/proc/${pid}/cmdline`))
}
