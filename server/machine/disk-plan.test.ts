// Which disk, whether it may be written, where the partitions lie, and what people are told of it.

import test from 'ava'
import fc from 'fast-check'

import { parseMac } from '#lib/mac.ts'
import { imageOf } from '#testing/registry-fixture.ts'

import { describeBytes, findBytes } from './amounts.ts'
import type { BootPlan } from './boot-plan.ts'
import { findDiskConditions } from './disk-conditions.ts'
import { LABELS, layOut, SMALLEST_DISK_BYTES } from './disk-layout.ts'
import { describePlan } from './disk-lines.ts'
import { decideDiskPlan } from './disk-plan.ts'
import type { Disk, DiskContent } from './machine.ts'
import type { Profile } from './profile.ts'

const mac = parseMac('02:4b:69:74:00:01')

const disk = (name: string, others: Partial<Disk> = {}): Disk => ({
  ...{ name, sizeBytes: 500e9, removable: false, transport: 'nvme', contents: [] },
  ...others,
})

const OURS: readonly DiskContent[] = LABELS.map((label, index) => ({ where: `vda${index + 1}`, label }))
const LINUX: readonly DiskContent[] = [
  { where: 'vda1', label: 'EFI', type: 'vfat' },
  { where: 'vda2', type: 'ext4' },
]

function profileWith(settings: Record<string, string>): Profile {
  return {
    ...{ mac, role: 'worker', channel: 'stable', layers: [] },
    settings: new Map(
      Object.entries(settings).map(([key, value]) => [
        key,
        { value, layer: 'roles/worker', file: `/p/${key}` },
      ]),
    ),
  }
}

const plan = (
  disks: readonly Disk[],
  settings: Record<string, string> = {},
  persistence: 'keep' | 'wipe' = 'keep',
) => decideDiskPlan({ disks, profile: profileWith(settings), persistence, arguments: 'kit.url=x' })

const nvme = disk('nvme0n1', { serial: 'S4EV 1', wwn: '0x5000AB', model: 'Samsung SSD 980' })
const sata = disk('sda', { transport: 'sata', sizeBytes: 2e12, model: 'WDC  ' })
const stick = disk('sdb', { transport: 'usb', sizeBytes: 64e9 })
const card = disk('mmcblk0', { transport: 'mmc', removable: true, sizeBytes: 32e9 })
const tiny = disk('sdc', { transport: 'sata', sizeBytes: SMALLEST_DISK_BYTES - 1 })

const choices: readonly [string, readonly Disk[], Record<string, string>, string | RegExp][] = [
  ['the only one', [nvme], {}, 'nvme0n1'],
  ['the only one that is not a stick, a card or too small', [stick, card, tiny, nvme], {}, 'nvme0n1'],
  ['none of none', [], {}, /there is no disk that could be meant.*reported no disk at all/s],
  [
    'none of sticks',
    [stick, card],
    {},
    /there is no disk that could be meant.*sdb.*on USB.*mmcblk0.*removable/s,
  ],
  [
    'none of several',
    [nvme, sata],
    {},
    /there are 2 disks that could be meant.*nvme0n1 \(500 GB.*sda \(2 TB/s,
  ],
  [
    'the one with the serial',
    [nvme, sata],
    { disk: 'serial=S4EV' },
    /there is no disk for which serial=S4EV holds/,
  ],
  ['the one with the WWN', [nvme, sata], { disk: 'wwn=0x5000ab' }, 'nvme0n1'],
  ['the one of the model', [nvme, sata], { disk: 'model=samsung*980' }, 'nvme0n1'],
  ['the one whose model has blanks behind it', [nvme, sata], { disk: 'model=WDC' }, 'sda'],
  ['the one of a transport', [nvme, sata], { disk: 'transport=sata' }, 'sda'],
  ['the one in the range', [nvme, sata], { disk: 'size=100G-600G' }, 'nvme0n1'],
  ['the one large enough', [nvme, sata], { disk: 'size=>=1T' }, 'sda'],
  ['the one small enough', [nvme, sata], { disk: 'size=<=500G' }, 'nvme0n1'],
  [
    'none when not all conditions hold',
    [nvme, sata],
    { disk: 'transport=sata size=<=1T' },
    /there is no disk for which/,
  ],
  [
    'none of two for which they hold',
    [nvme, sata],
    { disk: 'size=>=1G' },
    /there are 2 disks for which.*\/p\/disk/,
  ],
  ['the stick, when somebody names it', [nvme, stick], { disk: 'transport=usb' }, 'sdb'],
  [
    'none that is too small, also when named',
    [tiny],
    { disk: 'transport=sata' },
    /the smallest disk is 8 GB/,
  ],
  [
    'none by words that are no conditions',
    [nvme],
    { disk: 'nonsense' },
    /there is no disk for which nonsense/,
  ],
  ['8 GB exactly', [disk('vda', { sizeBytes: SMALLEST_DISK_BYTES })], {}, 'vda'],
]

for (const [title, disks, settings, expected] of choices) {
  test(`decideDiskPlan() chooses ${title}`, (t) => {
    const decided = plan(disks, settings)
    const shown = decided.kind === 'use' ? decided.disk.name : decided.lines.join('\n')
    if (typeof expected === 'string') t.is(shown, expected)
    else t.regex(shown, expected)
  })
}

const wipes: readonly [string, Partial<Disk>, Record<string, string>, 'make' | 'keep' | RegExp][] = [
  ['makes a table on a blank disk', {}, {}, 'make'],
  ['makes one in place of an empty one', { table: 'gpt' }, {}, 'make'],
  ['keeps ours', { table: 'gpt', contents: OURS }, {}, 'keep'],
  ['keeps ours with a partition more', { contents: [...OURS, { where: 'vda10', type: 'ext4' }] }, {}, 'keep'],
  ['keeps ours whatever wipe says', { contents: OURS }, { wipe: 'force' }, 'keep'],
  ['refuses what is foreign', { contents: LINUX }, {}, /Cannot wipe vda.*vda1 vfat "EFI", vda2 ext4/],
  ['makes one over it by force', { contents: LINUX }, { wipe: 'force' }, 'make'],
  ['refuses a file system on the disk itself', { contents: [{ where: 'vda', type: 'xfs' }] }, {}, /vda xfs/],
  ['refuses ours in part', { contents: OURS.slice(1) }, {}, /something on it.*9 of unknown content|kit-esp/],
  [
    'refuses ours with a label twice',
    { contents: [...OURS, { where: 'vda10', label: 'kit-persist' }] },
    {},
    /Cannot wipe/,
  ],
]

for (const [title, changes, settings, expected] of wipes) {
  test(`decideDiskPlan() ${title}`, (t) => {
    const decided = plan([disk('vda', changes)], settings)
    if (typeof expected !== 'string') {
      t.regex(decided.kind === 'refused' ? decided.lines.join('\n') : decided.table, expected)
    } else t.is(decided.kind === 'use' ? decided.table : decided.lines.join('\n'), expected)
  })
}

test('decideDiskPlan() tells everything that is wrong at once', (t) => {
  const decided = plan([disk('vda', { contents: LINUX, sizeBytes: 4e9 }), disk('vdb', { contents: OURS })], {
    disk: 'size=<=5G',
  })
  if (decided.kind === 'use') return t.fail()
  t.regex(
    decided.lines.join('\n'),
    /smallest disk.*Cannot wipe.*setting wipe.*vdb.*KatesKit's partitions too/s,
  )
})

test('decideDiskPlan() keeps persistence of ours unless it is to be wiped, and none behind a new table', (t) => {
  const ours = disk('vda', { contents: OURS })
  for (const [disks, wish, expected] of [
    [[ours], 'keep', 'keep'],
    [[ours], 'wipe', 'wipe'],
    [[disk('vda')], 'keep', 'wipe'],
  ] as const) {
    t.like(plan(disks, {}, wish), { persistence: expected, arguments: 'kit.url=x' })
  }
  const { role: _, ...withoutRole } = profileWith({})
  t.is(
    decideDiskPlan({ disks: [ours], profile: withoutRole, persistence: 'keep', arguments: '' }).kind,
    'refused',
  )
})

test('layOut() fills any disk without gaps or overlaps, in MiB, and leaves room for the second table', (t) => {
  const mib = 2048
  fc.assert(
    fc.property(
      fc.maxSafeNat().filter((bytes) => bytes >= SMALLEST_DISK_BYTES),
      (bytes) => {
        const parts = layOut(bytes)
        t.deepEqual(
          parts.map(({ label }) => label),
          LABELS,
        )
        let next = mib
        for (const { firstSector, sectors } of parts) {
          if (firstSector !== next || sectors <= 0 || sectors % mib !== 0) return false
          next = firstSector + sectors
        }
        const free = Math.floor(bytes / 512) - next
        return free >= 33 && free < 3 * mib
      },
    ),
  )
})

for (const [title, bytes, containersMib, persistMib] of [
  ['8 GB', 8e9, 643, 1288],
  ['2 TB', 2e12, 262_144, 1_639_506],
  ['20 TB', 20e12, 262_144, 18_805_644],
] as const) {
  test(`layOut() of ${title}`, (t) => {
    const parts = new Map(layOut(bytes).map((part) => [part.label, part]))
    t.like(parts.get('kit-bios'), { firstSector: 2048, sectors: 2048 })
    t.like(parts.get('kit-esp'), { firstSector: 4096, sectors: 511 * 2048 })
    t.is(parts.get('kit-root-b')?.sectors, 2048 * 2048)
    t.is((parts.get('kit-containers')?.sectors ?? 0) / 2048, containersMib)
    t.is((parts.get('kit-persist')?.sectors ?? 0) / 2048, persistMib)
  })
}

test('findDiskConditions() knows words that are conditions, and refuses all when one is none', (t) => {
  t.is(findDiskConditions('serial=a size=1G-2G')?.length, 2)
  for (const text of [
    '',
    ' ',
    'serial',
    'color=red',
    'serial=a b',
    'size=1G',
    'size=>1G',
    'size=-1G',
    'SERIAL=a',
  ])
    t.is(findDiskConditions(text), undefined, text)
})

test('findBytes() and describeBytes() count by the thousand', (t) => {
  for (const [text, bytes, shown] of [
    ['512', 512, '512 B'],
    ['512K', 512e3, '512 KB'],
    ['1.5T', 1.5e12, '1.5 TB'],
    ['8G', 8e9, '8 GB'],
    ['999999M', 999_999e6, '1 TB'],
  ] as const) {
    t.is(findBytes(text), bytes)
    t.is(describeBytes(bytes), shown)
  }
  for (const text of ['', 'G', '1GB', '-1', '1 G', '1e9', '1,5G']) t.is(findBytes(text), undefined, text)
})

const bootPlan = (kind: 'install' | 'powerwash' | 'powerwash-all' | 'live'): BootPlan => ({
  ...{ kind, image: imageOf('1.4.2'), profile: profileWith({}) },
  bundle: { digest: 'b'.repeat(64), sizeBytes: 1, file: '/b' },
})
const ours = disk('vda', { contents: OURS })

const lines: readonly [string, BootPlan, ReturnType<typeof plan> | undefined, readonly RegExp[]][] = [
  [
    'a blank disk',
    bootPlan('install'),
    plan([disk('vda')]),
    [/new partition table on vda .*kit-persist 329\.\d GB/, /loses nothing/],
  ],
  [
    'force',
    bootPlan('install'),
    plan([disk('vda', { contents: LINUX })], { wipe: 'force' }),
    [/loses everything on it: vda1 vfat/],
  ],
  [
    'a powerwash',
    bootPlan('powerwash'),
    plan([ours]),
    [/starts image 1\.4\.2/, /partition table stays/, /keeps kit-persist \(etcd/, /loses the cache/],
  ],
  ['one that wipes', bootPlan('powerwash-all'), plan([ours], {}, 'wipe'), [/loses kit-persist/]],
  ['a refusal', bootPlan('install'), plan([nvme, sata]), [/would be refused/, /there are 2 disks/]],
  ['disks not known', bootPlan('install'), undefined, [/it has not reported its disks yet/]],
  ['a live boot', bootPlan('live'), undefined, [/writes to no disk/]],
  ['a hold', { kind: 'hold', reason: 'no image' }, undefined, [/goes nowhere: no image/]],
  ['its own disk', { kind: 'local-disk', reason: 'installed' }, undefined, [/on to its own disk: installed/]],
]

for (const [title, aPlan, diskPlan, patterns] of lines) {
  test(`describePlan() tells of ${title}`, (t) => {
    const text = describePlan(aPlan, diskPlan).join('\n')
    for (const pattern of patterns) t.regex(text, pattern)
  })
}
