// npm run bench:disk: what installing, updating and starting from the disk cost, as ratios within one run on one machine.
//
// Everything is timed by the server's events: from the moment the machine is switched on, or told to restart, to its
// agent's check-in. `-- --json` makes the last line one object; `-- --runs <n>` takes medians of n (3).

import { parseArgs } from 'node:util'

import type { LabMachine } from '#lab/lab-machines.ts'
import type { Vm } from '#lab/vm.ts'

import { buildVariant, VARIANTS } from '../qemu-tests/image-variants.ts'
import { INSTALLED_FILES, withDisk } from '../qemu-tests/installed-lan.ts'
import { BIOS, startTestLan, type TestLan, UEFI } from '../qemu-tests/test-lan.ts'
import { bytesTo, imageBytes } from '../qemu-tests/wire-bytes.ts'
import { median, seconds, withSurroundings } from './measure.ts'

interface Bench {
  readonly lan: TestLan
  readonly machine: LabMachine
  readonly runs: number
}

interface Measured {
  readonly provisionSeconds: readonly number[]
  readonly diskBootSeconds: readonly number[]
  readonly updateBytes: number
  readonly fullBytes: number
  readonly updateDowntimeSeconds: readonly number[]
  readonly rebootSeconds: readonly number[]
}

const CHANNEL = 'stable'

const { values } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    runs: { type: 'string', default: '3' },
    firmware: { type: 'string', default: 'uefi' },
  },
})

await withSurroundings(async (t) => {
  const next = await buildVariant('next')
  const lan = await startTestLan(t, { mode: 'server', files: INSTALLED_FILES })
  const bench: Bench = { lan, machine: values.firmware === 'bios' ? BIOS : UEFI, runs: Number(values.runs) }
  const [first = ''] = (await lan.fleet.images()).map(({ version }) => version)
  await lan.fleet.promote(first, CHANNEL)
  await lan.fleet.importImage(next)
  const provisioning = await measureProvisioning(bench)
  const updates = await measureUpdates(bench, { vm: provisioning.vm, versions: [first, VARIANTS.next] })
  report({ ...provisioning, ...updates, fullBytes: await imageBytes(next) })
})

/** Blank disk → running, then the same disk once more. */
async function measureProvisioning({ lan, machine, runs }: Bench) {
  const provisionSeconds: number[] = []
  const diskBootSeconds: number[] = []
  let vm: Vm | undefined
  for (let run = 0; run < runs; run += 1) {
    await vm?.kill()
    const spec = withDisk(lan, machine)
    const disks = spec.disks.map((disk) => ({ ...disk, file: `${disk.file}.${run}` }))
    const times = [provisionSeconds, diskBootSeconds]
    for (const list of times) {
      await vm?.kill()
      const step = await lan.fromNow()
      vm = await lan.powerOn(machine, { ...spec, disks })
      const { atMs } = await step.waitFor('checked-in', machine.mac, ({ data }) => data['to'] === 'running')
      list.push(seconds(atMs - vm.poweredOnMs))
      // A start that has not become a good boot yet would be repeated as one on trial.
      if (list === provisionSeconds) await step.waitFor('slot-good', machine.mac)
      say(`${list === provisionSeconds ? 'provisioning' : 'from the disk'}: ${list.at(-1)} s`)
    }
  }
  if (vm === undefined) throw new Error('Cannot measure nothing: --runs is 0')
  return { provisionSeconds, diskBootSeconds, vm }
}

/** To the other image and back, each time with a plain reboot after it. */
async function measureUpdates(
  { lan, machine, runs }: Bench,
  { vm, versions }: { vm: Vm; versions: readonly string[] },
) {
  const updateDowntimeSeconds: number[] = []
  const rebootSeconds: number[] = []
  let updateBytes = 0
  for (let run = 0; run < runs; run += 1) {
    const step = await lan.fromNow()
    const before = await bytesTo(lan.network.netns, vm)
    await lan.fleet.promote(versions[(run + 1) % versions.length] ?? '', CHANNEL)
    const ordered = await step.waitFor(
      'step-done',
      machine.mac,
      ({ data, message }) => data['step'] === 'update' && /^restarts/.test(message),
    )
    if (run === 0) updateBytes = (await bytesTo(lan.network.netns, vm)) - before
    const running = await step.waitFor(
      'checked-in',
      machine.mac,
      ({ data, id }) => data['to'] === 'running' && id > ordered.id,
    )
    updateDowntimeSeconds.push(seconds(running.atMs - ordered.atMs))
    await step.waitFor('updated', machine.mac)
    rebootSeconds.push(await measureReboot(lan, machine))
    say(`update: ${updateDowntimeSeconds.at(-1)} s, reboot: ${rebootSeconds.at(-1)} s`)
  }
  return { updateBytes, updateDowntimeSeconds, rebootSeconds }
}

async function measureReboot(lan: TestLan, machine: LabMachine): Promise<number> {
  const step = await lan.fromNow()
  const view = await lan.network.server.client.machine(machine.mac)
  const orderedMs = Date.now()
  await lan.onMachine(view, 'systemctl reboot --no-block')
  const running = await step.waitFor('checked-in', machine.mac, ({ data }) => data['to'] === 'running')
  return seconds(running.atMs - orderedMs)
}

function report(measured: Measured): void {
  const provision = median(measured.provisionSeconds)
  const diskBoot = median(measured.diskBootSeconds)
  const update = median(measured.updateDowntimeSeconds)
  const reboot = median(measured.rebootSeconds)
  const ratios = {
    provisionRatio: ratio(provision, diskBoot),
    deltaRatio: ratio(measured.updateBytes, measured.fullBytes),
    downtimeRatio: ratio(update, reboot),
  }
  say(`provisioning ${provision} s, from the disk ${diskBoot} s: ${ratios.provisionRatio} × (goal ≤ 2.0)`)
  say(
    `update of one package ${measured.updateBytes} of ${measured.fullBytes} bytes: ${ratios.deltaRatio} (goal ≤ 0.15)`,
  )
  say(`downtime of an update ${update} s, plain reboot ${reboot} s: ${ratios.downtimeRatio} × (goal ≤ 1.15)`)
  const { provisionSeconds, diskBootSeconds, updateDowntimeSeconds, rebootSeconds, updateBytes, fullBytes } =
    measured
  const numbers = {
    provisionSeconds,
    diskBootSeconds,
    updateDowntimeSeconds,
    rebootSeconds,
    updateBytes,
    fullBytes,
  }
  if (values.json) process.stdout.write(`${JSON.stringify({ ...ratios, ...numbers })}\n`)
}

function ratio(part: number, whole: number): number {
  return Math.round((1000 * part) / whole) / 1000
}

function say(line: string): void {
  process.stdout.write(`${line}\n`)
}
