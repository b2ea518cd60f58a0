// One machine whose power is cut again and again, and what must be true each time it is switched on again.

import { rm } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'

import type { LabMachine } from '#lab/lab-machines.ts'
import type { Vm } from '#lab/vm.ts'
import { KitError } from '#lib/errors.ts'
import type { MachineView } from '#machine/ports.ts'

import type { CutPoint, Landmark } from './cut-points.ts'
import type { EventWatch } from './event-watch.ts'
import { machineDisk, withDisk } from './installed-lan.ts'
import { machineFiles } from './profile-files.ts'
import type { TestLan } from './test-lan.ts'
import { loseUnflushed, withWriteLog } from './write-log.ts'

export interface CutLife {
  readonly machine: LabMachine
  /** Its own, so that its updates are not another machine's. */
  readonly channel: string
  /** The images it goes back and forth between, by version: their root hashes. */
  readonly images: ReadonlyMap<string, string>
  readonly say: (line: string) => void
  /** From 0 up to 1: which of the writes that were not flushed are lost. */
  readonly random: () => number
}

/** A machine comes up at the first or second start; a slot on trial has three, and one more brings the other slot. */
const MAX_STARTS = 5

/** Lives through all points, in order. Throws what was not as it must be, with the point. */
export async function liveThrough(lan: TestLan, life: CutLife, points: readonly CutPoint[]): Promise<void> {
  let vm: Vm | undefined
  for (const [index, point] of points.entries()) {
    const name = `${life.machine.name}, cut ${index + 1}: ${point.phase}, ${point.after} + ${point.delayMs} ms`
    try {
      const step = await lan.fromNow()
      const before = await findView(lan, life)
      vm = await begin(lan, life, { point, vm, bundle: `${index}` })
      await reach(step, life.machine, point.after)
      await sleep(point.delayMs)
      await vm.kill()
      const lost = await loseUnflushed(machineDisk(lan, life.machine), life.random)
      const after = await lan.fromNow()
      vm = await powerOn(lan, life.machine)
      await after.untilRunning(life.machine.mac)
      await checkSound(lan, life, { vm, before })
      const ended = await lan.untilView(life.machine.mac, isSettled)
      await checkSound(lan, life, { vm, before })
      const what = `${ended.imageVersion} in slot ${ended.slot}, ${startsOf(vm)} starts, ${lost} writes lost`
      life.say(`${name}: ${what}`)
    } catch (error) {
      throw new KitError('internal', `Cannot survive ${name}\n${vm?.serial.tail(60) ?? ''}`, { cause: error })
    }
  }
}

/**
 * Its disk has a cache, which loses what was not flushed when the power is cut. A cut in an installation, before which the disk
 * is taken away, loses the machine's key too: the person who looks on says that it is the same machine.
 */
async function powerOn(lan: TestLan, machine: LabMachine): Promise<Vm> {
  const disk = await withWriteLog(machineDisk(lan, machine))
  return lan.powerOn(machine, { ...withDisk(lan, machine), disks: [disk], pairing: 'all' })
}

interface Beginning {
  readonly point: CutPoint
  readonly vm: Vm | undefined
  /** Content of the file that makes a new bundle. */
  readonly bundle: string
}

/** Asks for what the phase is; the machine that is on then. */
async function begin(lan: TestLan, life: CutLife, { point, vm, bundle }: Beginning): Promise<Vm> {
  const { machine } = life
  if (vm === undefined || point.phase === 'install') {
    await vm?.kill()
    await rm(machineDisk(lan, machine).file, { force: true })
    return powerOn(lan, machine)
  }
  switch (point.phase) {
    case 'update': {
      const { imageVersion } = await lan.network.server.client.machine(machine.mac)
      const other = [...life.images.keys()].find((version) => version !== imageVersion) ?? ''
      await lan.fleet.promote(other, life.channel)
      return vm
    }
    case 'bundle':
      await lan.writeProfile(machineFiles(machine.mac, { 'root/etc/kit-test/bundle': `${bundle}\n` }))
      return vm
    case 'powerwash':
      await lan.fleet.powerwash(machine.mac)
      return vm
    default:
      point.phase satisfies never
      return vm
  }
}

async function reach(step: EventWatch, { mac }: LabMachine, landmark: Landmark): Promise<void> {
  const [kind = '', name] = landmark.split(' ')
  if (kind === 'start') return
  await step.waitFor(kind as Parameters<EventWatch['waitFor']>[0], mac, ({ data }) =>
    name === undefined ? true : data['step'] === name,
  )
}

/** Right after the first check-in: an image that it was to have, whole, and nothing of another one. */
async function checkSound(
  lan: TestLan,
  life: CutLife,
  { vm, before }: { vm: Vm; before: MachineView | undefined },
): Promise<void> {
  const wrong = (what: string) => new KitError('internal', what)
  if (vm.serial.text.includes('rescue#')) throw wrong('It ended in a shell')
  if (startsOf(vm) > MAX_STARTS) throw wrong(`It started ${startsOf(vm)} times`)
  const view = await lan.network.server.client.machine(life.machine.mac)
  const allowed = [before?.imageVersion, view.wantedImage]
  if (!allowed.includes(view.imageVersion))
    throw wrong(`It runs ${view.imageVersion}, not ${allowed.join(' or ')}`)
  const seen = await seenInside(lan, view).catch(() => undefined)
  if (seen === undefined) return // it restarts into the new one just now; looked at again when it has settled
  const expected = {
    root: life.images.get(seen['image'] ?? ''),
    recorded: seen['root'],
    release: seen['image'],
  }
  for (const [name, value] of Object.entries(expected)) {
    if (seen[name] !== value) throw wrong(`Mixed versions: ${name} is ${seen[name]}, not ${value}`)
  }
  if (seen['bundle'] !== seen['laid']) throw wrong(`Mixed bundles: ${seen['bundle']} on ${seen['laid']}`)
}

/** Of the running system: what its slot's record says, what device-mapper verifies, what is mounted. */
async function seenInside(lan: TestLan, view: MachineView): Promise<Readonly<Record<string, string>>> {
  const output = await lan.onMachine(
    view,
    `slot=$(cat /run/kit/slot); field() { sed -n "s/^$1 //p" "/run/kit/overlay/slots/$slot"; }
    echo "image=$(field image)" "root=$(dmsetup table kit-root | cut -d ' ' -f 12)" "recorded=$(field root-hash)" \
      "release=$(. /usr/lib/os-release && echo "$IMAGE_VERSION")" "bundle=$(field bundle)" \
      "laid=$(ls /run/kit/overlay/bundles | grep -Fx "$(field bundle)")"`,
  )
  return Object.fromEntries(output.split(' ').map((word) => word.split('=') as [string, string]))
}

/** Nothing is left to do: it runs what it is to run, its slot is good, and no powerwash is asked for. */
function isSettled(view: MachineView): boolean {
  const isGood = view.slot !== undefined && view.slots?.[view.slot].state === 'good'
  const isWanted = view.imageVersion === view.wantedImage && view.bundleDigest === view.wantedBundle
  return view.state === 'running' && isGood && isWanted && view.powerwash === undefined
}

async function findView(lan: TestLan, { machine }: CutLife): Promise<MachineView | undefined> {
  const views = await lan.network.server.client.machines()
  return views.find(({ mac }) => mac === machine.mac)
}

function startsOf(vm: Vm): number {
  return vm.serial.text.split('] Linux version ').length - 1
}
