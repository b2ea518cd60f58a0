// Three images and a bad one, on UEFI and on BIOS: forward, back by itself, forward again, and a slot that rots.

import test from 'ava'

import { buildVariant, VARIANTS } from './image-variants.ts'
import { machineDisk, startInstalledLan, switchOff, withDisk } from './installed-lan.ts'
import { damagePartition } from './machine-disk.ts'
import { startPaperMachine } from './paper-machine.ts'
import { machineFiles } from './profile-files.ts'
import { BIOS, UEFI } from './test-lan.ts'
import { bytesTo, imageBytes } from './wire-bytes.ts'

const CHANNEL = 'stable'

const SQUASHFS_START = { fromBytes: 0, toBytes: 4096, everyBytes: 64 }
/** The first files of the image, of which there is something every machine needs to get up. */
const FIRST_FILES = { fromBytes: 1024 ** 2, toBytes: 60 * 1024 ** 2, everyBytes: 64 * 1024 }

test('machines go from image to image, come back from a bad one by themselves, and the fleet stops there', async (t) => {
  const [next, bad, later] = [
    await buildVariant('next'),
    await buildVariant('bad'),
    await buildVariant('later'),
  ]
  const lan = await startInstalledLan(t, {
    files: {
      [`channels/${CHANNEL}/update-at-once`]: '2\n',
      [`channels/${CHANNEL}/update-halt-after`]: '2\n',
      ...machineFiles(UEFI.mac, { canary: 'yes\n' }),
      ...machineFiles(BIOS.mac, { canary: 'yes\n' }),
      'machines/02-4b-69-74-00-99/role': 'worker\n',
      'machines/02-4b-69-74-00-99/identity': 'mac-only\n',
    },
  })
  const { client } = lan.network.server
  const [first = ''] = (await lan.fleet.images()).map(({ version }) => version)
  const vms = await Promise.all([UEFI, BIOS].map((machine) => lan.powerOn(machine, withDisk(lan, machine))))
  const start = await lan.fromNow()
  for (const { mac } of [UEFI, BIOS]) await start.untilRunning(mac)
  const paper = await startPaperMachine(t, lan.network.netns)
  await paper.runs(first, (await client.machine(paper.mac)).wantedBundle ?? '')

  // 1 → 2
  await lan.fleet.importImage(next)
  let step = await lan.fromNow()
  const before = await Promise.all(vms.map((vm) => bytesTo(lan.network.netns, vm)))
  await lan.fleet.promote(VARIANTS.next, CHANNEL)
  const full = await imageBytes(next)
  for (const [index, vm] of vms.entries()) {
    await step.waitFor('update-started', vm.spec.mac)
    const loaded = (await bytesTo(lan.network.netns, vm)) - (before[index] ?? 0)
    t.log(`${vm.spec.name}: ${loaded} of ${full} bytes, ${((100 * loaded) / full).toFixed(1)} %`)
    t.true(loaded <= 0.15 * full)
  }
  for (const { mac } of [UEFI, BIOS]) {
    const { data } = await step.waitFor('updated', mac)
    t.like(data, { from: first, to: VARIANTS.next })
    t.like(await client.machine(mac), {
      slot: 'b',
      imageVersion: VARIANTS.next,
      slots: { a: { state: 'good' } },
    })
  }
  await paper.runs(VARIANTS.next, (await client.machine(paper.mac)).wantedBundle ?? '')

  // → bad 3 → back to 2: the kernel of one panics, the other never checks in.
  await lan.fleet.importImage(bad)
  step = await lan.fromNow()
  await lan.fleet.promote(VARIANTS.bad, CHANNEL)
  for (const { mac } of [UEFI, BIOS]) {
    t.is((await step.waitFor('update-failed', mac)).data['image'], VARIANTS.bad)
    const machine = await step.untilView(mac, ({ slot, state }) => slot === 'b' && state === 'running')
    t.like(machine, { imageVersion: VARIANTS.next, slots: { a: { state: 'bad' } } })
    t.regex(machine.slots?.a.reason ?? '', mac === UEFI.mac ? /tries|never/ : /agent does not run/)
  }
  const halted = await lan.fleet.rollout(CHANNEL)
  t.regex(halted?.state ?? '', /halted|quarantined/)
  t.deepEqual([...(halted?.failed ?? [])].sort(), [UEFI.mac, BIOS.mac].sort())
  t.regex(halted?.reason ?? '', /0\.3\.0/)
  t.is((await paper.target()).get('image'), VARIANTS.next, 'the third one was not even asked to fetch it')

  // → 4
  await lan.fleet.importImage(later)
  step = await lan.fromNow()
  await lan.fleet.promote(VARIANTS.later, CHANNEL)
  for (const { mac } of [UEFI, BIOS]) {
    t.like((await step.waitFor('updated', mac)).data, { from: VARIANTS.next, to: VARIANTS.later })
  }

  // A slot that was good and is damaged on the disk: the other one starts, and writes it anew.
  await switchOff(lan, vms)
  await damagePartition(machineDisk(lan, UEFI).file, { label: 'kit-root-a', ...FIRST_FILES })
  await damagePartition(machineDisk(lan, BIOS).file, { label: 'kit-root-a', ...SQUASHFS_START })
  step = await lan.fromNow()
  await Promise.all([UEFI, BIOS].map((machine) => lan.powerOn(machine, withDisk(lan, machine))))
  for (const { mac } of [UEFI, BIOS]) {
    const { data, message } = await step.waitFor('slot-bad', mac)
    t.like(data, { slot: 'a', image: VARIANTS.later })
    t.regex(message, /damaged/)
    await step.untilView(mac, ({ slot, slots, imageVersion }) => {
      return slot === 'a' && slots?.a.state === 'good' && imageVersion === VARIANTS.later
    })
  }
})
