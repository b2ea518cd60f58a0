// What machines with a disk say and are told: boots, disks, slots, targets.

import { createHash } from 'node:crypto'

import test from 'ava'

import { KitError } from '#lib/errors.ts'
import { parseMac } from '#lib/mac.ts'
import type { Disk } from '#machine/machine.ts'
import type { DiskPlan, Target } from '#machine/ports.ts'
import { codeOf, startHttp } from '#testing/http-fixture.ts'

import { formatDiskPlan, formatTarget, targetTag } from './machine-answers.ts'

const MAC = parseMac('52:54:00:12:34:56')
const DIGEST = 'ab'.repeat(32)

const TARGET: Target = {
  imageVersion: '2026.1',
  bundleDigest: DIGEST,
  mayStage: true,
  mayReboot: false,
  isGood: true,
  powerwash: false,
  secretsKept: 'persist',
  kubernetes: 'worker',
  snapshotSeconds: 3600,
  isMirrored: false,
  rateKiBps: 2048,
  arguments: 'kit.url=http://10.77.0.1:8080 console=tty0',
}

const DISK: Disk = {
  name: 'vda',
  sizeBytes: 8_589_934_592,
  removable: false,
  transport: 'virtio',
  serial: 'S4 EV',
  table: 'gpt',
  contents: [{ where: 'vda1', label: 'kit-esp', type: 'vfat' }, { where: 'vda' }],
}

const USE: DiskPlan = {
  kind: 'use',
  disk: DISK,
  table: 'make',
  partitions: [
    {
      label: 'kit-bios',
      firstSector: 2048,
      sectors: 2048,
      typeGuid: '21686148-6449-6E6F-744E-656564454649',
    },
    { label: 'kit-esp', firstSector: 4096, sectors: 1_046_528, typeGuid: 'X' },
  ],
  persistence: 'keep',
  arguments: 'kit.url=http://10.77.0.1:8080 quiet',
}

test('formatDiskPlan() says each thing on a line of its own', (t) => {
  t.is(
    formatDiskPlan(USE),
    [
      'disk vda',
      'serial S4 EV',
      'table make',
      'part kit-bios 2048 2048 21686148-6449-6E6F-744E-656564454649',
      'part kit-esp 4096 1046528 X',
      'persistence keep',
      'arguments kit.url=http://10.77.0.1:8080 quiet',
      '',
    ].join('\n'),
  )
  const { serial: _none, ...nameless } = DISK
  t.is(
    formatDiskPlan({ ...USE, disk: nameless, table: 'keep', persistence: 'wipe', arguments: '' }),
    'disk vda\ntable keep\npersistence wipe\narguments\n',
  )
  const lines = ['Cannot choose a disk: there are two', 'a line\nbreak']
  t.is(formatDiskPlan({ kind: 'refused', lines }), `refused ${lines[0]}\nrefused a line break\n`)
})

test('formatTarget() puts the tag over all lines but itself and the time', (t) => {
  const lines = [
    'image 2026.1',
    `bundle ${DIGEST}`,
    'stage yes',
    'reboot no',
    'good yes',
    'powerwash no',
    'secrets-kept persist',
    'rate 2048',
    'kubernetes worker',
    'etcd-snapshot-every 3600',
    'registry-mirror no',
    'arguments kit.url=http://10.77.0.1:8080 console=tty0',
  ]
  const tag = createHash('sha256').update(lines.join('\n')).digest('hex').slice(0, 16)
  t.is(formatTarget(TARGET, 1_700_000_000_999), [`tag ${tag}`, ...lines, 'time 1700000000', ''].join('\n'))
  t.is(targetTag(TARGET), tag)
})

test('targetTag() differs with every field', (t) => {
  const others: Partial<Target>[] = [
    { imageVersion: '2026.2' },
    { bundleDigest: 'cd'.repeat(32) },
    { mayStage: false },
    { mayReboot: true },
    { isGood: false },
    { powerwash: true },
    { secretsDigest: 'ef'.repeat(32) },
    { secretsKept: 'memory' },
    { rateKiBps: 0 },
    { arguments: '' },
    { kubernetes: 'none' },
    { snapshotSeconds: 0 },
    { isMirrored: true },
  ]
  const tags = [{}, ...others].map((other) => targetTag({ ...TARGET, ...other }))
  t.is(new Set(tags).size, others.length + 1)
})

test('GET target answers as soon as the tag is another, and passes on which boot asks', async (t) => {
  const { desk, machine } = await startHttp(t)
  const own = await machine(MAC)
  const target = (query: string) => own.call(`target?${query}`)
  desk.wanted = TARGET
  const known = targetTag(TARGET)
  t.regex(`${(await target('boot=b1&known=&wait=60')).body}`, new RegExp(`^tag ${known}\nimage 2026.1\n`))
  t.is((await target(`known=${known}&wait=0`)).status, 200)
  const waiting = target(`boot=b1&known=${known}&bundle=ignored&wait=60`)
  await desk.listening(1)
  desk.change(TARGET)
  desk.change({ ...TARGET, mayReboot: true })
  t.regex(`${(await waiting).body}`, /\nreboot yes\n/)
  t.deepEqual(desk.calls[0], ['target', MAC, 'b1'])
  t.deepEqual(desk.calls[1], ['target', MAC])
  for (const boot of ['a%0Ab', 'x'.repeat(65), 'a%20b'])
    t.is((await target(`boot=${boot}`)).status, 400, boot)
})

test('POST boots names the boot of a machine that started from its disk', async (t) => {
  const { desk, machine } = await startHttp(t)
  const own = await machine(MAC)
  t.is((await own.say('boots', { slot: 'b' })).body, 'boot boot-2\n')
  t.deepEqual(desk.calls, [['nameBoot', MAC, 'b']])
  for (const body of [{ slot: 'c' }, {}, { slot: null }]) {
    t.is(codeOf(await own.say('boots', body)), 'invalid-input')
  }
  t.is((await own.call('boots')).headers.get('allow'), 'POST')
})

test('POST disks hands the report on, without what is empty, and answers with the plan', async (t) => {
  const { desk, machine } = await startHttp(t)
  const own = await machine(MAC)
  desk.diskPlan = USE
  const report = { boot: 'b1', firmware: 'uefi', disks: [DISK] }
  const sent = {
    ...report,
    disks: [
      {
        ...DISK,
        serial: ' S4 EV  ',
        wwn: '',
        model: '   ',
        contents: [
          { where: 'vda1', label: 'kit-esp', type: 'vfat' },
          { where: 'vda', label: '' },
        ],
      },
    ],
  }
  const answer = await own.say('disks', sent)
  t.is(answer.status, 200)
  t.is(answer.body, formatDiskPlan(USE))
  t.deepEqual(desk.calls, [['takeDisks', MAC, report]])
  desk.failure = new KitError('not-found', 'Cannot take these disks: boot b1 was never offered')
  t.is((await own.say('disks', sent)).status, 404)
})

test('POST disks takes a report of 32 KiB, cleans its texts, and refuses what is no disk', async (t) => {
  const { desk, machine } = await startHttp(t)
  const own = await machine(MAC)
  const disks = (...list: unknown[]) => own.say('disks', { boot: 'b', firmware: 'bios', disks: list })
  const many = Array.from({ length: 100 }, (_, n) => ({ ...DISK, name: `sd${n}`, contents: [] }))
  t.is((await disks(...many, { ...DISK, model: 'x'.repeat(200) })).status, 200)
  t.is((await disks({ ...DISK, model: 'evil\u001b[31m', transport: '' })).status, 200)
  t.like(desk.calls[1]?.[2], { disks: [{ model: 'evil [31m', transport: 'unknown' }] })
  const bad: [disk: unknown, said: RegExp][] = [
    [{ ...DISK, name: '../sda' }, /disks\.0\.name/],
    [{ ...DISK, name: '' }, /name/],
    [{ ...DISK, sizeBytes: -1 }, /sizeBytes/],
    [{ ...DISK, sizeBytes: 1.5 }, /sizeBytes/],
    [{ ...DISK, sizeBytes: '8' }, /sizeBytes/],
    [{ ...DISK, removable: 0 }, /removable/],
    [{ ...DISK, contents: undefined }, /contents/],
    [{ ...DISK, serial: 'x'.repeat(257) }, /serial/],
  ]
  for (const [disk, said] of bad) {
    const answer = await disks(disk)
    t.is(codeOf(answer), 'invalid-input')
    t.regex(JSON.stringify(answer.body), said)
  }
  t.is(codeOf(await disks({ ...DISK, model: 'x'.repeat(33_000) })), 'too-large')
  t.is(codeOf(await disks(...Array.from({ length: 129 }, () => ({})))), 'invalid-input')
})

test('POST check-in takes slots, checks and drift, and cuts what is too long instead of refusing it', async (t) => {
  const { desk, machine } = await startHttp(t)
  const own = await machine(MAC)
  const checkIn = (fields: object) => own.say('check-in', { boot: 'b', phase: 'running', ...fields })
  const fields = {
    slot: 'b',
    slots: {
      a: { state: 'good', image: '1', bundle: DIGEST },
      b: { state: 'trying', image: '2', bundle: 'damaged?', tries: 2, reason: 'none yet' },
    },
    checks: 'waiting',
    reason: 'kubelet is not ready',
    drift: ['/etc/motd'],
  }
  t.is((await checkIn(fields)).status, 204)
  t.is((await checkIn({ phase: 'installing' })).status, 204)
  t.is((await checkIn({ reason: `${'x'.repeat(2000)}\n` })).status, 204)
  t.is((await checkIn({ drift: Array.from({ length: 300 }, (_, n) => `/etc/${n}\u001b`) })).status, 204)
  const [first, second, third, fourth] = desk.calls.map(([, , said]) => said as Record<string, string>)
  t.deepEqual(first, { boot: 'b', phase: 'running', ...fields } as never)
  t.is(second?.['phase'], 'installing')
  t.is(third?.['reason'], `${'x'.repeat(1023)}…`)
  t.is(fourth?.['drift']?.length, 100)
  t.is(fourth?.['drift']?.[7], '/etc/7 ')
  const bad: object[] = [
    { phase: 'dancing' },
    { slot: 'c' },
    { slots: { a: { state: 'good' } } },
    { slots: { a: { state: 'best' }, b: { state: 'good' } } },
    { slots: { a: { state: 'trying', tries: -1 }, b: { state: 'good' } } },
    { checks: 'maybe' },
    { drift: 'all' },
    { boot: 'x'.repeat(65) },
  ]
  for (const each of bad) t.is(codeOf(await checkIn(each)), 'invalid-input', JSON.stringify(each))
})
