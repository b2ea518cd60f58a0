// The commands about machines, channels and rollouts, against a real HTTP service, and what they print.

import { PassThrough } from 'node:stream'

import test, { type ExecutionContext } from 'ava'

import { parseIpv4 } from '#lib/ipv4.ts'
import { parseMac } from '#lib/mac.ts'
import type { Attempt } from '#machine/identity.ts'
import type { Slot } from '#machine/machine.ts'
import type { MachineView } from '#machine/ports.ts'
import type { ChannelView, RolloutView } from '#machine/release-ports.ts'
import { cli, typing } from '#testing/cli-fixture.ts'
import { startHttpWithReleases } from '#testing/http-fixture.ts'

import { Interrupted } from './cli-io.ts'
import { chooseByName } from './find-machine.ts'
import { cut, formatFittedTable } from './fitted-table.ts'
import { renderMachine, renderPlan } from './render-machine.ts'
import { renderMachines, TABLE_WIDTH } from './render-machines.ts'
import { renderChannels, renderPowerwash, renderRollout, renderRollouts } from './render-releases.ts'
import { runCommandLine } from './run.ts'

const MAC = parseMac('52:54:00:12:34:56')
const OTHER = parseMac('52:54:00:12:34:57')
const DIGEST = 'b'.repeat(64)

const VIEW: MachineView = {
  ...{ mac: MAC, state: 'running', stateSinceMs: 0, firstSeenMs: 0, lastSeenMs: 0, rebootReasons: [] },
  ...{ role: 'worker', channel: 'stable', hostname: 'one', wantedBundle: DIGEST },
}
const slot = (state: Slot['state'], rest: Partial<Slot> = {}): Slot => ({ state, ...rest })
const UPDATING: MachineView = {
  ...VIEW,
  ...{
    lastCheckInMs: 0,
    imageVersion: '1.4.2-8f2c11aa',
    wantedImage: '1.4.3-00ff00ff',
    bundleDigest: DIGEST,
  },
  ...{ slot: 'a', slots: { a: slot('good'), b: slot('trying', { tries: 2 }) } },
  identity: {
    tier: 'paired',
    sinceMs: 0,
    by: 'control socket',
    keySha256: 'c'.repeat(64),
    macs: [MAC, OTHER],
  },
}

const ATTEMPT: Attempt = {
  ...{ id: 'a1', mac: MAC, address: parseIpv4('10.0.0.9'), state: 'waiting', isConflict: true },
  ...{ keySha256: 'd'.repeat(64), sinceMs: 0 },
}

async function withServer(t: ExecutionContext, input = '') {
  const server = await startHttpWithReleases(t)
  const stdin = input === '' ? {} : { stdin: typing(input) }
  return { server, ...cli({ KATESKIT_HTTP_CONTROL_SOCKET: server.socketFile }, stdin) }
}

test('machines prints a table, one machine in full, or the JSON of the API', async (t) => {
  const { server, run } = await withServer(t)
  t.regex((await run('machines')).out, /^No machine has been seen yet/)
  server.knowMachine(VIEW)
  t.regex((await run('machines')).out, /^MAC .*\n52:54:00:12:34:56 {2}one +worker +running/)
  t.deepEqual(JSON.parse((await run('machines', '--json')).out), { machines: [VIEW] })
  t.regex((await run('machines', 'one')).out, /^52:54:00:12:34:56 {2}one\nRole {7}worker\n/)
  t.deepEqual(JSON.parse((await run('machines', MAC, '--json')).out), VIEW)
  t.is((await run('machines', OTHER)).code, 1)
})

test('a machine goes by its host name in every command, and a wrong name is suggested another', async (t) => {
  const { server, run } = await withServer(t)
  server.knowMachine({ ...VIEW, hostname: 'node-one' })
  server.knowMachine({ ...VIEW, mac: OTHER, hostname: 'twin' })
  server.knowMachine({ ...VIEW, mac: parseMac('52:54:00:12:34:58'), hostname: 'twin' })
  t.is((await run('assign', 'Node-One', 'worker')).code, 0)
  t.is(server.profiles.assigned.get(MAC), 'worker')
  t.is((await run('events', 'node-one')).code, 0)
  t.regex((await run('config', 'explain', 'node-one')).out, /kit-of-52:54:00:12:34:56/)
  const wrong = await run('machines', 'node-on')
  t.is(wrong.code, 1)
  t.is(
    wrong.err,
    'error: Cannot find machine node-on: no machine has this name (did you mean node-one?)\n' +
      '  fix: kateskit machines lists those that were seen\n',
  )
  const twin = await run('machines', 'twin')
  t.regex(
    twin.err,
    /Cannot tell which machine twin is: 52:54:00:12:34:57, 52:54:00:12:34:58\n {2}fix: name it/,
  )
  const nonsense = await run('machines', 'a b')
  t.is(nonsense.code, 2)
  t.regex(nonsense.err, /Cannot read a machine: "a b"\n {2}fix: write its MAC/)
})

test('chooseByName() takes no part of a name', (t) => {
  t.is(chooseByName([{ ...VIEW, hostname: 'one-1' }, VIEW], 'ONE'), MAC)
  t.throws(() => chooseByName([{ ...VIEW, hostname: 'one-1' }], 'one'), {
    message: /no machine has this name/,
  })
})

test('assign gives a role, and passes the error of the server on', async (t) => {
  const { server, run } = await withServer(t)
  const { code, out } = await run('assign', '52-54-00-12-34-56', 'worker')
  t.is(code, 0)
  t.regex(out, /^52:54:00:12:34:56 is now worker/)
  t.is(server.profiles.assigned.get(MAC), 'worker')
  const refused = await run('assign', MAC, 'astronaut')
  t.is(refused.code, 1)
  t.is(refused.err, 'error: Cannot assign astronaut: no such role\n')
})

test('plan prints what the next netboot would do', async (t) => {
  const { server, run } = await withServer(t)
  server.knowMachine(VIEW)
  server.powerwashes.view = { plan: 'install', lines: ['starts image 1.4.2'], disks: [] }
  t.is((await run('plan', 'one')).out, `The next netboot of ${MAC} (one): install\n  starts image 1.4.2\n`)
  t.like(JSON.parse((await run('plan', MAC, '--json')).out), { plan: 'install' })
  server.powerwashes.plan = async () => ({ plan: 'install', lines: [], disks: [] })
  t.is(
    (await run('plan', OTHER)).out,
    `The next netboot of ${OTHER}: install\n`,
    'a folder alone has a plan too',
  )
})

const POWERWASHES: readonly [args: string[], typed: string, calls: unknown[], code: number, said: RegExp][] =
  [
    [[], 'y\n', [['request', MAC, 'keep']], 0, /kept: persistence .*\nAsked for/s],
    [[], 'YES\n', [['request', MAC, 'keep']], 0, /Asked for/],
    [[], '\n', [], 0, /Nothing was done/],
    [[], 'n\n', [], 0, /Nothing was done/],
    [['--yes'], 'n\n', [['request', MAC, 'keep']], 0, /Asked for/],
    [['--persistence'], 'y\n', [['request', MAC, 'wipe']], 0, /lost: .*; and persistence \(etcd/],
    [['--cancel'], '', [['cancel', MAC]], 0, /^The powerwash of 52:54:00:12:34:56 \(one\) is taken back/],
    [[], '', [['request', MAC, 'keep']], 0, /Asked for/],
    [['--persistence'], '', [], 2, /Cannot ask whether persistence may be wiped.*\n {2}fix: add --yes/],
    [['--persistence', '-y'], '', [['request', MAC, 'wipe']], 0, /Asked for/],
  ]
for (const [args, typed, calls, code, said] of POWERWASHES) {
  test(`powerwash ${args.join(' ')} does as it says when ${JSON.stringify(typed)} is typed`, async (t) => {
    const { server, run } = await withServer(t, typed)
    server.knowMachine(VIEW)
    const result = await run('powerwash', 'one', ...args)
    t.is(result.code, code)
    t.regex(result.out + result.err, said)
    t.deepEqual(server.powerwashes.calls, calls as unknown[][])
  })
}

test('powerwash that is interrupted at its question does nothing, and exits as shells do', async (t) => {
  const server = await startHttpWithReleases(t)
  server.knowMachine(VIEW)
  const controller = new AbortController()
  const stdin = Object.assign(new PassThrough(), { isTTY: true })
  const { io } = cli(
    { KATESKIT_HTTP_CONTROL_SOCKET: server.socketFile },
    { stdin, signal: controller.signal },
  )
  const stderr = {
    write(text: string) {
      if (text.startsWith('Go on?')) setImmediate(() => controller.abort(new Interrupted('SIGINT')))
    },
  }
  t.is(await runCommandLine(['powerwash', 'one'], { ...io, stderr }), 130)
  t.deepEqual(server.powerwashes.calls, [])
})

test('channel promotes, pauses, resumes and lists', async (t) => {
  const { server, run } = await withServer(t)
  t.regex((await run('channel', 'list')).out, /^CHANNEL .*\nstable +2026\.1 +- +0 +.* ago +2025\.9\n$/)
  t.like(JSON.parse((await run('channel', 'list', '--json')).out), { channels: [{ name: 'stable' }] })
  t.is(
    (await run('channel', 'promote', '2026.1', 'stable')).out,
    'stable points at 2026.1; no machine is on it\n',
  )
  const slip = await run('channel', 'promote', '2026.1', 'stabel')
  t.is(slip.out, 'stabel points at 2026.1; no machine is on it (did you mean stable?)\n')
  server.releases.views.set('beta', { ...CHANNEL, name: 'beta', machines: [MAC] })
  t.regex(
    (await run('channel', 'promote', '2026.1', 'beta')).out,
    /^beta points at 2026\.1: 1 machine on it\./,
  )
  t.regex((await run('channel', 'pause', 'beta')).out, /^beta is paused/)
  t.regex((await run('channel', 'resume', 'beta')).out, /^beta goes on/)
  t.deepEqual(server.releases.calls.slice(-2), [
    ['pause', 'beta', true],
    ['pause', 'beta', false],
  ])
  const wrong = await run('channel', 'promote', '2026.2', 'beta')
  t.is(wrong.code, 1)
  t.regex(wrong.err, /Cannot find 2026\.2: there is no such image\n {2}fix: there are: 2026\.1/)
  t.is((await run('channel', 'promote', '2026.1', '../x')).code, 2)
})

test('pin and unpin are the same beside channel and below it', async (t) => {
  const { server, run } = await withServer(t)
  server.knowMachine(VIEW)
  t.is((await run('pin', 'one', '2026.1')).out, `${MAC} is pinned to 2026.1\n`)
  t.is((await run('unpin', 'one')).out, `${MAC} follows its channel again\n`)
  await run('channel', 'pin', MAC, '2026.1')
  await run('channel', 'unpin', MAC)
  const both = [
    ['pin', MAC, '2026.1'],
    ['pin', MAC, undefined],
  ]
  t.deepEqual(server.releases.calls, [...both, ...both])
})

test('rollout shows how far it is, pauses, resumes and tries again', async (t) => {
  const { server, run } = await withServer(t)
  server.knowMachine(VIEW)
  server.releases.rolloutViews = [{ ...ROLLOUT, updating: [MAC] }]
  t.regex(
    (await run('rollout', 'status')).out,
    /^CHANNEL .*\nstable +2 +running +0 +1 +0 +0 +1 +1 failure\n$/,
  )
  t.regex((await run('rollout', 'status', 'stable')).out, /\nupdating {2}52:54:00:12:34:56 {2}one\n$/)
  t.like(JSON.parse((await run('rollout', 'status', '--json')).out), { rollouts: [{ channel: 'stable' }] })
  t.like(JSON.parse((await run('rollout', 'status', 'stable', '--json')).out), { updating: [MAC] })
  t.is(
    (await run('rollout', 'pause', 'stable')).out,
    'The rollout of 2 on stable is paused: no update begins on it\n',
  )
  t.is((await run('rollout', 'resume', 'stable')).out, 'The rollout of 2 on stable goes on\n')
  t.is((await run('rollout', 'retry', 'stable')).out, 'The rollout of 2 on stable is tried again\n')
  t.regex((await run('rollout', 'status', 'stabel')).err, /did you mean stable\?/)
  t.regex((await run('rollout', 'pause', 'stabel')).err, /did you mean stable\?/)
})

test('rollout status shows what no channel points at and who else has the lock; lift and unlock end it', async (t) => {
  const { server, run } = await withServer(t)
  const [sinceMs, reason] = [Date.now() - 7_200_000, 'kernel panic']
  server.releases.quarantineViews = [
    { version: '1.1', mac: MAC, reason, sinceMs, channels: [] },
    { version: '2', mac: MAC, reason, sinceMs, channels: ['stable'] },
  ]
  server.releases.updateLocks = [
    { channel: 'stable', holder: 'fleetlock:a/b', sinceMs },
    { channel: 'beta', holder: MAC, version: '2', sinceMs },
  ]
  const { out } = await run('rollout', 'status')
  const [, quarantined = '', locked = ''] = out.split('\n\n')
  t.deepEqual(quarantined.split('\n'), [
    'IN QUARANTINE  SINCE    FAILED ON          REASON',
    '1.1            2 h ago  52:54:00:12:34:56  kernel panic',
    '    kateskit rollout lift <version> lets one be used again',
  ])
  t.regex(locked, /^LOCK OF +HELD BY +SINCE\nstable +fleetlock:a\/b +2 h ago\n {4}kateskit rollout unlock /)
  t.regex((await run('rollout', 'status', 'stable')).out, /fleetlock:a\/b/)
  t.like(JSON.parse((await run('rollout', 'status', '--json')).out), {
    quarantines: [{ version: '1.1' }, { version: '2' }],
    locks: [{ holder: 'fleetlock:a/b' }, { version: '2' }],
  })
  t.is((await run('rollout', 'lift', '1.1')).out, '1.1 may be used again\n')
  t.is(
    (await run('rollout', 'unlock', 'stable', 'fleetlock:a/b')).out,
    'fleetlock:a/b does not hold the update lock of stable any more\n',
  )
  t.deepEqual(server.releases.calls, [
    ['lift', '1.1'],
    ['releaseLock', 'stable', 'fleetlock:a/b'],
  ])
  t.is((await run('rollout', 'lift', '7')).code, 1)
})

const ROLLOUT: RolloutView = {
  ...{ channel: 'stable', version: '2', state: 'running', atOnce: 1, haltAfter: 1 },
  ...{ done: [], updating: [], waiting: [], failed: [] },
}
const CHANNEL: ChannelView = {
  ...{ name: 'stable', version: '2', previous: [], isPaused: false, changedMs: 0, machines: [] },
}

test('renderMachines() shows both slots, the image that is wanted, and the bundle', (t) => {
  t.deepEqual(renderMachines([UPDATING, { ...VIEW, mac: OTHER, hostname: 'two' }], 12_000), [
    'MAC                HOSTNAME  ROLE    STATE    TIER    A/B           IMAGE          CHANNEL  BUNDLE  SEEN',
    '52:54:00:12:34:56  one       worker  running  paired  good*/trying  1.4.2 → 1.4.3  stable   ok      12 s',
    '    → image 1.4.3-00ff00ff',
    '52:54:00:12:34:57  two       worker  running  -       -             -              stable   -       -',
  ])
})

test('renderMachines() keeps versions whole where their first part says too little', (t) => {
  const lines = renderMachines([{ ...UPDATING, wantedImage: '1.4.2-00ff00ff' }], 0)
  t.regex(lines[1] ?? '', / 1\.4\.2-8f2c11aa {2}stable/)
  t.is(lines[2], '    → image 1.4.2-00ff00ff')
  const { imageVersion: _none, ...fresh } = UPDATING
  t.is(renderMachines([fresh], 0)[2], '    → image 1.4.3-00ff00ff')
  t.is(renderMachines([{ ...UPDATING, wantedImage: '1.4.3' }], 0).length, 2)
})

test('renderMachines() says below a machine what a person may want to do something about', (t) => {
  const machine: MachineView = {
    ...UPDATING,
    ...{
      bundleDigest: 'a'.repeat(64),
      rebootReasons: ['the kernel arguments', 'fstab'],
      drift: ['/etc/motd'],
    },
    ...{ checks: 'failed', reason: 'kubelet is not ready', pin: '1.4.1' },
    slots: { a: slot('good'), b: slot('bad', { image: '1.4.3-00ff00ff', reason: 'kernel panic' }) },
    powerwash: { requestedMs: 0, persistence: 'keep' },
  }
  const [, line, ...notes] = renderMachines([machine], 20 * 60_000)
  t.regex(line ?? '', / old +20 min$/)
  t.deepEqual(notes, [
    '    → image 1.4.3-00ff00ff',
    '    silent for 20 min',
    '    needs a reboot: the kernel arguments; fstab',
    '    drift in 1 file: /etc/motd',
    '    its own checks failed',
    '    kubelet is not ready',
    '    slot b (1.4.3-00ff00ff) is bad: kernel panic',
    '    powerwash asked for 20 min ago',
    '    pinned to 1.4.1',
  ])
  t.notRegex(renderMachines([UPDATING], 10 * 60_000).join(' '), /silent/)
})

test('renderMachines() fits the table’s width whatever is in it', (t) => {
  const widest: MachineView = {
    ...UPDATING,
    ...{ hostname: 'h'.repeat(63), role: 'r'.repeat(63), channel: 'c'.repeat(63), state: 'discovered' },
    ...{ imageVersion: 'v'.repeat(64), wantedImage: 'w'.repeat(64), lastCheckInMs: -9e12 },
    slots: { a: slot('writing'), b: slot('writing') },
    reason: 'x'.repeat(1024),
  }
  for (const line of renderMachines([widest, UPDATING], 1)) t.true(line.length <= TABLE_WIDTH, line)
  const usual = { ...UPDATING, hostname: 'kit-12-34-56', role: 'control-plane' }
  const [, line = ''] = renderMachines([usual], 1000)
  t.is(
    line,
    '52:54:00:12:34:56  kit-12-34-56  contr…  running  paired  good*/trying  1.4.2 → 1.4.3  stable   ok      1 s',
  )
})

test('renderMachines() says which machines wait for a person, and for what', (t) => {
  const notesWith = (attempt: Partial<Attempt>) =>
    renderMachines([{ ...VIEW, attempts: [{ ...ATTEMPT, ...attempt }] }], 0).slice(2, 3)
  t.deepEqual(notesWith({ isConflict: false }), [`    kateskit pair ${MAC} <code on its console>`])
  t.regex(`${notesWith({})}`, /another key than the known one: kateskit pair .*--replace/)
  t.deepEqual(notesWith({ state: 'refused' }), [`    its TPM is not approved: kateskit approve ${MAC}`])
})

test('formatFittedTable() cuts in order, no further than it must, and marks what it cut', (t) => {
  const cuts = [
    { column: 'B', min: 3 },
    { column: 'A', min: 2 },
  ]
  const table = (width: number) => formatFittedTable(['A', 'B'], [['aaaaaa', 'bbbbbb']], { width, cuts })[1]
  t.is(table(14), 'aaaaaa  bbbbbb')
  t.is(table(13), 'aaaaaa  bbbb…')
  t.is(table(9), 'aaa…  bb…')
  t.is(table(1), 'a…  bb…')
  t.is(cut('abc', 3), 'abc')
})

test('renderMachine() tells everything', (t) => {
  const machine: MachineView = {
    ...UPDATING,
    ...{
      checks: 'waiting',
      reason: 'one of two',
      rebootReasons: ['fstab', 'kernel'],
      drift: ['/etc/a', '/etc/b'],
    },
    ...{ pin: '1.4.3-00ff00ff', firmware: 'uefi-x64', uuid: 'u' },
    slots: {
      a: slot('good', { image: '1.4.2-8f2c11aa', bundle: DIGEST }),
      b: slot('bad', { tries: 0, reason: 'panic' }),
    },
    powerwash: { requestedMs: 0, persistence: 'wipe' },
    attempts: [ATTEMPT],
    disks: [
      {
        ...{
          name: 'vda',
          sizeBytes: 8_589_934_592,
          removable: true,
          transport: 'virtio',
          serial: 'S',
          wwn: '0x5',
        },
        ...{ model: 'QEMU', table: 'gpt', contents: [{ where: 'vda1', label: 'kit-esp', type: 'vfat' }] },
      },
      { name: 'vdb', sizeBytes: 5, removable: false, transport: 'usb', contents: [] },
    ],
  }
  t.deepEqual(renderMachine(machine, 5000), [
    '52:54:00:12:34:56  one',
    'Role       worker',
    'Channel    stable, but pinned to 1.4.3-00ff00ff',
    'State      running for 5 s, checked in 5 s ago',
    'Reason     one of two',
    'Checks     waiting',
    'Reboot     fstab',
    '           kernel',
    'Address    -',
    'Firmware   uefi-x64',
    'UUID       u',
    'Identity   paired by control socket, 5 s ago',
    `Key        ${'c'.repeat(64)}`,
    'Other MACs 52:54:00:12:34:57',
    'Waiting    another key than the known one: kateskit pair 52:54:00:12:34:56 <code on its console> --replace, or leave it out',
    'Image      1.4.2-8f2c11aa → 1.4.3-00ff00ff',
    `Bundle     ${DIGEST}`,
    'Slot a     good, image 1.4.2-8f2c11aa, bundle bbbbbbbbbbbb, running',
    'Slot b     bad, 0 tries left',
    '           panic',
    'Drift      /etc/a',
    '           /etc/b',
    'Powerwash  asked for 5 s ago, persistence is wiped too',
    'Disks      vda  8.6 GB  virtio  removable  QEMU  serial S  wwn 0x5  gpt',
    '              vda1 kit-esp vfat',
    '           vdb  5 B  usb  no partition table',
  ])
  const { role: _role, ...unknown } = VIEW
  t.like(renderMachine({ ...unknown, isInstalled: false, drift: [] }, 0), {
    1: 'Role       none: kateskit assign <machine> <role>',
    3: 'State      running for 0 s, never checked in',
    6: 'Identity   it has not proved who it is',
    9: 'Slots      its disk is being made new',
    10: 'Drift      none',
  })
})

test('renderPlan() lists the disks below the plan', (t) => {
  const disks = [{ name: 'vda', sizeBytes: 8e9, removable: false, transport: 'virtio', contents: [] }]
  t.deepEqual(
    renderPlan(`${MAC} (one)`, { plan: 'install', lines: ['would be refused:', 'two disks'], disks }),
    [
      `The next netboot of ${MAC} (one): install`,
      '  would be refused:',
      '  two disks',
      '',
      'Disks, as it reported them last:',
      '  vda  8 GB  virtio  no partition table',
    ],
  )
})

test('renderPowerwash() says what is lost and what is kept', (t) => {
  const [, lost = '', kept = ''] = renderPowerwash(VIEW, 'keep')
  t.notRegex(lost, /persistence/)
  t.regex(kept, /persistence .*etcd.*; role, channel, pin/)
  const [, all = '', left = ''] = renderPowerwash(VIEW, 'wipe')
  t.regex(all, /persistence .*etcd/)
  t.notRegex(left, /persistence/)
})

test('renderChannels() and renderRollouts() say what there is when there is nothing', (t) => {
  t.regex(renderChannels([], 0)[0] ?? '', /kateskit channel promote/)
  t.is(renderRollouts([]).length, 1)
  t.regex(renderRollout(ROLLOUT, []).at(-1) ?? '', /No machine is on this channel/)
  t.regex(renderChannels([{ ...CHANNEL, isPaused: true }], 0)[1] ?? '', /^stable +2 +paused +0 +0 s ago +-$/)
})

test('renderRollouts() says why one stands still, and what helps', (t) => {
  const halted: RolloutView = {
    ...ROLLOUT,
    state: 'halted',
    reason: '2 machines failed',
    failed: [MAC, OTHER],
  }
  t.deepEqual(renderRollouts([halted]).slice(2), [
    '    2 machines failed',
    '    kateskit rollout retry stable tries again, once the reason is gone',
  ])
  const held = { ...ROLLOUT, held: [{ mac: MAC, reason: 'its node is being drained' }] }
  t.deepEqual(renderRollouts([held]).slice(2), [`    ${MAC} may not restart yet: its node is being drained`])
  const states = ['quarantined', 'paused', 'done'] as const
  t.deepEqual(
    states.map((state) =>
      renderRollouts([{ ...ROLLOUT, state }])[2]
        ?.trim()
        .split(' ')
        .slice(0, 3)
        .join(' '),
    ),
    ['kateskit rollout retry', 'kateskit rollout resume', undefined],
  )
})
