import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import test from 'ava'
import { startChild } from '#lib/child.ts'
import { KitError } from '#lib/errors.ts'
import { parseMac } from '#lib/mac.ts'
import { commandOutput } from '#lib/process.ts'
import type { Event } from '#machine/event.ts'
import type { MachineView } from '#machine/ports.ts'
import { checkPort, createForwarder } from './forwarder.ts'
import { probeKvm } from './kvm.ts'
import { parseLabMachines } from './lab-machines.ts'
import { addBridge, addCable, createNetns } from './netns.ts'
import { powerOn } from './phases.ts'
import { type MachineFiles, type MachineSpec, OVMF_VARIABLES, qemuArguments } from './qemu.ts'
import { SerialLog } from './serial-log.ts'
import { notReadyReason, statusJson, statusTable } from './status-text.ts'
import { createVm } from './vm.ts'
import { WallSockets } from './wall-sockets.ts'
import type { MachineStatus } from './watch.ts'

const MAC = parseMac('52:54:00:77:01:01')
const SPEC: MachineSpec = { name: 'one', mac: MAC, firmware: 'uefi', accelerator: 'tcg' }
const FILES: MachineFiles = {
  serialLog: '/lab/one.log',
  serialSocket: '/lab/one.console',
  monitorSocket: '/lab/one.qmp',
  tpmSocket: '/lab/one.tpm',
  firmwareVariables: '/lab/a,b.fd',
}

async function temporaryFolder(t: { teardown(end: () => Promise<void>): void }): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'kateskit-test-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  return folder
}

const QEMU_CASES: readonly [string, Partial<MachineSpec>, RegExp][] = [
  ['keeps the iPXE of QEMU out of UEFI', {}, /-device virtio-net-pci,.*bootindex=1,romfile=(?: |$)/],
  [
    'leaves the iPXE of QEMU to SeaBIOS',
    { firmware: 'bios' },
    /-device virtio-net-pci,[^ ]*bootindex=1(?: |$)/,
  ],
  ['doubles commas in paths', {}, /file=\/lab\/a,,b\.fd/],
  ['emulates with several threads', {}, /-accel tcg,thread=multi -cpu max/],
  ['uses KVM where it works', { accelerator: 'kvm' }, /-accel kvm -cpu max/],
  [
    'puts the disk first when told so',
    { disks: [{ file: '/d.img' }], bootOrder: 'disk-first' },
    /virtio-net-pci,[^ ]*bootindex=2.*virtio-blk-pci,drive=disk0,bootindex=1/,
  ],
  ['puts the network first otherwise', { disks: [{ file: '/d.img' }] }, /drive=disk0,bootindex=2/],
  [
    'gives each disk its bus and serial',
    {
      disks: [
        { file: '/a', bus: 'nvme' },
        { file: '/b', bus: 'sata', serial: 'S1' },
        { file: '/c', bus: 'usb' },
      ],
    },
    /nvme,drive=disk0,bootindex=2,serial=nvme0 .*ide-hd,bus=ide.1,drive=disk1,bootindex=3,serial=S1 .*usb-storage,bus=usb2.0,removable=on,drive=disk2/,
  ],
  [
    'gives it a TPM when it has one',
    { tpm: { stateFolder: '/lab/tpm' } },
    /-chardev socket,id=tpm0,path=\/lab\/one\.tpm -tpmdev emulator,id=tpm0,chardev=tpm0 -device tpm-tis,tpmdev=tpm0/,
  ],
  ['has a watchdog that resets', {}, /-device i6300esb -action watchdog=reset/],
  ['switches PXE off for UEFI HTTP boot', { networkBoot: 'http' }, /IPv4PXESupport,string=no/],
  ['gives the UUID', { uuid: '6b617465-734b-4974-8000-525400770101' }, /-uuid 6b617465/],
]

for (const [title, change, expected] of QEMU_CASES) {
  test(`qemuArguments() ${title}`, (t) => {
    t.regex(qemuArguments({ ...SPEC, ...change }, FILES, 'tap0').join(' '), expected)
  })
}

test('parseLabMachines() numbers the machines of each kind', (t) => {
  const machines = parseLabMachines('uefi, bios,uefi,container,container')
  t.deepEqual(
    machines.map(({ name, mac }) => [name, mac]),
    [
      ['uefi', '02:4b:69:74:00:01'],
      ['bios', '02:4b:69:74:00:02'],
      ['uefi-2', '02:4b:69:74:00:03'],
      ['container', '02:4b:69:74:00:41'],
      ['container-2', '02:4b:69:74:00:43'],
    ],
  )
  t.is(machines[0]?.uuid, '6b617465-734b-4974-8000-024b69740001')
})

for (const wrong of ['', 'arm', 'uefi,,bios', Array(9).fill('uefi').join(',')]) {
  test(`parseLabMachines() refuses ${JSON.stringify(wrong)}`, (t) => {
    t.throws(() => parseLabMachines(wrong), { instanceOf: KitError, message: /^Cannot make the machines/ })
  })
}

test('createNetns() makes a network of its own that ends with its holder', async (t) => {
  const netns = await createNetns()
  await addBridge(netns, { name: 'kit0', address: '10.77.0.1/24' })
  const other = await createNetns()
  await addCable(netns, 'kit0', { netns: other, interfaceName: 'lan0', address: '10.77.0.9/24' })
  t.regex(await netns.run('ip', ['-brief', 'address']), /^kit0 .*10\.77\.0\.1\/24/m)
  t.regex(await other.run('ip', ['-brief', 'address']), /^lan0.*10\.77\.0\.9\/24/m)
  t.notRegex(await commandOutput('ip', ['-brief', 'address']), /10\.77\.0\.1\//)
  await Promise.all([netns.stop(), other.stop()])
  await t.throwsAsync(netns.run('true', []), { instanceOf: KitError })
})

test('addBridge() leaves one card to answer for its address', async (t) => {
  const netns = await createNetns()
  const other = await createNetns()
  t.teardown(() => Promise.all([netns.stop(), other.stop()]))
  await addBridge(netns, { name: 'kit0', address: '10.77.0.1/24' })
  await addCable(netns, 'kit0', { netns: other, interfaceName: 'lan0', address: '10.77.0.9/24' })
  const answers = await other.run('busybox', ['arping', '-b', '-c', '2', '-I', 'lan0', '10.77.0.1'])
  const cards = new Set(answers.match(/\[[0-9a-f:]+\]/gi))
  t.deepEqual([...cards], ['[52:54:00:77:00:01]'])
})

test('startChild() ends its program when the parent is killed with -9', async (t) => {
  const program = `import {startChild} from ${JSON.stringify(import.meta.resolve('#lib/child.ts'))}
    const child = startChild('sleep', ['600'])
    process.stdout.write(String(child.pid))`
  const parent = startChild(process.execPath, ['--input-type=module-typescript', '--eval', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const [pid] = (await once(parent.process.stdout ?? parent.process, 'data')) as [Buffer]
  // tail follows the child's end without asking again and again; it is no child of ours.
  const gone = commandOutput('tail', ['--sleep-interval=0.05', `--pid=${pid}`, '-f', '/dev/null'])
  await parent.kill()
  t.is(await gone, '')
})

test('startChild() says how a program ended', async (t) => {
  t.is(await startChild('sh', ['-c', 'exit 3']).exited, 'exit code 3')
  const stubborn = startChild('sh', ['-c', 'trap "" TERM; echo up; while :; do sleep 1; done'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  await once(stubborn.process.stdout ?? stubborn.process, 'data')
  await stubborn.stop(100)
  t.is(await stubborn.exited, 'signal SIGKILL')
})

test('createForwarder() carries bytes both ways and refuses a port in use', async (t) => {
  const socketPath = join(await temporaryFolder(t), 'api.sock')
  const server = createServer((socket) => socket.pipe(socket)).listen(socketPath)
  await once(server, 'listening')
  const forwarder = createForwarder({ port: 0, socketPath })
  await forwarder.start()
  const second = createForwarder({ port: forwarder.port(), socketPath })
  const taken = { message: /^Cannot open port \d+ on 127\.0\.0\.1: another program uses it$/ }
  await t.throwsAsync(second.start(), taken)
  await t.throwsAsync(checkPort(forwarder.port()), taken)
  await t.notThrowsAsync(checkPort(0))

  const client = connect(forwarder.port(), '127.0.0.1')
  client.write('hello')
  const [echoed] = (await once(client, 'data')) as [Buffer]
  t.is(echoed.toString(), 'hello')

  await forwarder.stop() // ends open connections too
  await once(client, 'close')
  await second.stop()
  server.close()
})

test('SerialLog finds lines already there, lines to come, and shows its tail when one does not come', async (t) => {
  const file = join(await temporaryFolder(t), 'serial.log')
  await writeFile(file, '\x1b[2J\x1b[01;01HBdsDxe: \x1b[0mloading\r\n')
  const serial = new SerialLog(file)
  await serial.follow()
  t.is((await serial.waitFor(/BdsDxe: (\w+)/, 5000))[1], 'loading')
  const coming = serial.waitFor(/login:/g, 5000)
  await writeFile(file, 'debian login: ', { flag: 'a' })
  t.is((await coming)[0], 'login:')
  await t.throwsAsync(serial.waitFor(/never/, 10), { message: /ends with:\nBdsDxe: loading\ndebian login:/ })
  await serial.stop()
})

test('probeKvm() is told by firmware that speaks, and remembers it until the next boot', async (t) => {
  const cacheFile = join(await temporaryFolder(t), 'cache', 'kvm.json')
  t.false((await probeKvm({ cacheFile, device: '/dev/no-kvm' })).works)
  // Emulation stands in for a KVM that works; /dev/null for its device.
  const works = await probeKvm({ cacheFile, device: '/dev/null', accelerator: 'tcg', trialMs: 60_000 })
  t.deepEqual(works, { works: true })
  t.deepEqual(await probeKvm({ cacheFile, device: '/dev/null' }), { works: true })
})

test('createVm() says what QEMU complains of', async (t) => {
  const folder = await temporaryFolder(t)
  const netns = await createNetns()
  t.teardown(() => netns.stop())
  await t.throwsAsync(createVm({ netns, tap: 'tap0', folder }, { ...SPEC, extraArguments: ['-nonsense'] }), {
    message: /^Cannot switch on one: QEMU: .*nonsense/s,
  })
})

test('WallSockets gives a machine its disks and firmware variables again after the plug was pulled', async (t) => {
  const folder = await temporaryFolder(t)
  const netns = await createNetns()
  await addBridge(netns, { name: 'kit0', address: '10.77.0.1/24' })
  const sockets = new WallSockets({ netns, bridge: 'kit0', folder })
  t.teardown(async () => {
    await sockets.powerOffAll()
    await netns.stop()
  })
  const buses = ['virtio', 'nvme', 'sata', 'usb'] as const
  const disks = buses.map((bus) => ({ file: join(folder, `${bus}.disk`), bus, sizeBytes: 1024 ** 2 }))
  const spec: MachineSpec = { ...SPEC, memoryMiB: 256, disks }
  const first = await sockets.powerOn(spec)
  await t.throwsAsync(sockets.powerOn(spec), { message: 'Cannot switch on one: it is on' })
  await first.waitFor(/PXE over IPv4/, 60_000)
  const said = first.serial.text.length
  await first.reset()
  await first.serial.waitFor(/PXE over IPv4/, 60_000, said)
  await first.kill()
  t.is(await first.exited, 'signal SIGKILL')
  const variables = await readFile(first.files.firmwareVariables)
  t.false(variables.equals(await readFile(OVMF_VARIABLES)), 'the firmware has written what it found')

  await writeFile(disks[0]?.file ?? '', 'kept', { flag: 'r+' })
  const second = await sockets.powerOn(spec)
  t.is(second.serial.text, '', 'what it said before it was off is not heard again')
  await second.waitFor(/PXE over IPv4/, 60_000)
  await second.kill()
  const disk = await readFile(disks[0]?.file ?? '')
  t.is(disk.length, 1024 ** 2)
  t.is(disk.toString('latin1', 0, 4), 'kept')
})

const VIEW: MachineView = {
  ...{ mac: MAC, state: 'running', stateSinceMs: 0, firstSeenMs: 0, lastSeenMs: 0, rebootReasons: [] },
  ...{ role: 'worker', channel: 'stable', hostname: 'one', wantedBundle: 'b1', bundleDigest: 'b1' },
}
const MACHINE = { name: 'uefi', mac: MAC, firmware: 'uefi', uuid: '' } as const
const ARRIVED: MachineStatus = {
  machine: MACHINE,
  progress: {
    ...{ phase: 'running', poweredOnMs: 0 },
    endedMs: {
      firmware: 9e3,
      loader: 15e3,
      kernel: 20e3,
      pairing: 21e3,
      disk: 24e3,
      image: 30e3,
      system: 90e3,
    },
  },
  view: VIEW,
}

test('statusTable() shows where each machine is', (t) => {
  const waiting: MachineStatus = {
    machine: { ...MACHINE, name: 'uefi-2' },
    progress: powerOn(0),
    view: undefined,
  }
  t.deepEqual(statusTable([ARRIVED, waiting], 4000), [
    'MACHINE  ROLE    ADDRESS  SECONDS  WHERE IT IS',
    'uefi     worker  -        90       running',
    'uefi-2   -       -        4        firmware looks for a network',
  ])
})

const NODE = { role: 'worker', state: 'ready' } as const
const JOINING: readonly [string, Partial<MachineStatus>, RegExp, boolean][] = [
  [
    'has not asked for its part',
    { hasKubernetes: true, view: { ...VIEW, part: 'worker' } },
    /running, node not in the cluster yet$/,
    false,
  ],
  [
    'waits',
    { view: { ...VIEW, node: { ...NODE, state: 'waiting', reason: 'there is no cluster yet' } } },
    /running, node waiting: there is no cluster yet$/,
    false,
  ],
  [
    'is Ready',
    { hasKubernetes: true, view: { ...VIEW, part: 'worker', node: NODE } },
    /running, node Ready \(worker\)$/,
    true,
  ],
  ['is to be none', { hasKubernetes: true }, /running$/, true],
  ['has a part that its image cannot take', { view: { ...VIEW, part: 'worker' } }, /running$/, true],
]

for (const [title, change, text, ready] of JOINING) {
  test(`statusTable() and statusJson() of a machine whose node ${title}`, (t) => {
    const status = { ...ARRIVED, ...change }
    t.regex(statusTable([status], 0)[1] ?? '', text)
    t.is(statusJson(status)['ready'], ready)
    t.is(notReadyReason(status) === undefined, ready)
  })
}

test('statusTable() says why a machine that is known with another key waits', (t) => {
  const message = 'it came with another key'
  const lastEvent: Event = { id: 1, atMs: 1, kind: 'identity-conflict', mac: MAC, message, data: {} }
  const waiting: MachineStatus = {
    machine: MACHINE,
    progress: { ...powerOn(0), phase: 'pairing', lastEvent },
    view: undefined,
  }
  t.regex(statusTable([waiting], 4000)[1] ?? '', /4 +proves who it is: it came with another key$/)
})

test('notReadyReason() tells the phase, the last event or the failed step', (t) => {
  t.is(notReadyReason(ARRIVED), undefined)
  t.regex(notReadyReason({ ...ARRIVED, progress: powerOn(0) }) ?? '', /phase firmware; nothing was heard/)
  const failed = { ...ARRIVED.progress, phase: 'failed', step: '40-image', reason: 'sha256 differs' } as const
  t.is(notReadyReason({ ...ARRIVED, progress: failed }), 'step 40-image failed: sha256 differs')
  t.regex(notReadyReason({ ...ARRIVED, view: { ...VIEW, bundleDigest: 'b0' } }) ?? '', /b0 instead of b1/)
  const withoutSlot = { ...ARRIVED, view: { ...VIEW, isInstalled: false } }
  t.regex(notReadyReason(withoutSlot) ?? '', /from no slot/)
  const container = { ...MACHINE, firmware: 'container' } as const
  t.is(notReadyReason({ ...withoutSlot, machine: container }), undefined)
})

test('statusJson() has the seconds of every phase', (t) => {
  t.like(statusJson(ARRIVED), {
    ready: true,
    state: 'running',
    seconds: { firmware: 9, loader: 6, kernel: 5, pairing: 1, disk: 3, image: 6, system: 60, total: 90 },
  })
})
