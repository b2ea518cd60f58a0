// npm run bench:join: what it costs that machines become a cluster by themselves, as a ratio within one run on one machine.
//
// By itself: two machines whose disks are blank are switched on, until both nodes are Ready. By hand: the same kubeadm, init and join, typed
// on two machines that run the image already, until both are. Machines that are containers, at native speed; each run makes new ones.
// `-- --json` makes the last line one object; `-- --runs <n>` takes medians of n (3).

import { parseArgs } from 'node:util'

import type { MachineView } from '#machine/ports.ts'

import { adminOf, BY_HAND_FILES, BY_HAND_ROLE, initByHand, joinByHand } from '../cluster-tests/by-hand.ts'
import { type ClusterLan, startClusterLan } from '../cluster-tests/cluster-lan.ts'
import { FIRST, SECOND } from '../cluster-tests/container-lan.ts'
import { machineFiles, type ProfileFiles } from '../qemu-tests/profile-files.ts'
import type { Surroundings } from '../qemu-tests/test-lan.ts'
import { median, seconds, withSurroundings } from './measure.ts'

interface ByItself {
  readonly readySeconds: number
  /** Of those, until the first machine runs the image. */
  readonly runningSeconds: number
}

const { values } = parseArgs({
  options: { json: { type: 'boolean', default: false }, runs: { type: 'string', default: '3' } },
})

const byItself: ByItself[] = []
const byHandSeconds: number[] = []
for (let run = 0; run < Number(values.runs); run += 1) {
  byItself.push(await withSurroundings(measureByItself))
  byHandSeconds.push(await withSurroundings(measureByHand))
  say(`by itself ${byItself.at(-1)?.readySeconds} s, by hand ${byHandSeconds.at(-1)} s`)
}
report()

async function measureByItself(t: Surroundings): Promise<ByItself> {
  const labels = 'kit-bench/made=by-itself\n'
  const lan = await startClusterLan(t, {
    files: {
      'roles/control-plane/node-labels': labels,
      'roles/worker/node-labels': labels,
      ...filesFor({ first: 'control-plane', second: 'worker' }),
    },
  })
  const [first, second] = await Promise.all([lan.powerOn(FIRST), lan.powerOn(SECOND)])
  const startMs = Math.min(first.poweredOnMs, second.poweredOnMs)
  const running = await lan.waitFor('checked-in', FIRST.mac, ({ data }) => data['to'] === 'running')
  const ready = await Promise.all([FIRST, SECOND].map(({ mac }) => lan.waitFor('node-ready', mac)))
  return {
    readySeconds: seconds(Math.max(...ready.map(({ atMs }) => atMs)) - startMs),
    runningSeconds: seconds(running.atMs - startMs),
  }
}

async function measureByHand(t: Surroundings): Promise<number> {
  const files = { ...BY_HAND_FILES, ...filesFor({ first: BY_HAND_ROLE, second: BY_HAND_ROLE }) }
  const lan = await startClusterLan(t, { files })
  await Promise.all([lan.powerOn(FIRST), lan.powerOn(SECOND)])
  const machines = {
    first: await lan.untilRunning(FIRST.mac),
    second: await lan.untilRunning(SECOND.mac),
  }
  const startMs = Date.now()
  await initByHand(lan, machines.first)
  await joinByHand(lan, machines)
  await untilReady(lan, machines.first)
  return seconds(Date.now() - startMs)
}

async function untilReady(lan: ClusterLan, first: MachineView): Promise<void> {
  await adminOf(lan, first)('wait --for=condition=Ready node/first node/second --timeout=600s')
}

function filesFor(roles: { readonly first: string; readonly second: string }): ProfileFiles {
  return {
    ...machineFiles(FIRST.mac, { role: `${roles.first}\n`, ip: '10.77.0.50\n', hostname: 'first\n' }),
    ...machineFiles(SECOND.mac, { role: `${roles.second}\n`, ip: '10.77.0.51\n', hostname: 'second\n' }),
  }
}

function report(): void {
  const readySeconds = byItself.map((each) => each.readySeconds)
  const runningSeconds = byItself.map((each) => each.runningSeconds)
  const joinRatio = Math.round((1000 * median(readySeconds)) / median(byHandSeconds)) / 1000
  say(
    `from blank disks to Ready ${median(readySeconds)} s (running after ${median(runningSeconds)} s), by hand on running machines ${median(byHandSeconds)} s: ${joinRatio} × (goal ≤ 1.3)`,
  )
  if (values.json)
    process.stdout.write(`${JSON.stringify({ joinRatio, readySeconds, runningSeconds, byHandSeconds })}\n`)
}

function say(line: string): void {
  process.stdout.write(`${line}\n`)
}
