// The cgroups of container machines, in either version of cgroups; what a killed lab left of them is swept by its name.

import { access, mkdir, readdir, readFile, rmdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import { KitError, systemErrorCode } from '#lib/errors.ts'
import { pollUntil } from '#lib/retry.ts'

export interface CgroupHost {
  /** v1: a hierarchy for each controller. v2: one for all. */
  readonly version: 'v1' | 'v2'
  /** Each hierarchy's root. */
  readonly roots: readonly string[]
}

export interface Cgroups {
  readonly version: CgroupHost['version']
  /** The machine's own, one in each hierarchy: whatever runs for it joins all of them. */
  readonly folders: readonly string[]
  /** Resolves when they are gone, with all that was made in them. No process of the machine may be on its way any more. */
  remove(): Promise<void>
}

/** Below it a folder for each lab process, and in that one for each machine. */
const TOP = 'kateskit-lab'

const V2_CONTROLLERS = ['cpuset', 'cpu', 'io', 'memory', 'pids']

/** Killed processes leave their cgroups a moment later. */
const EMPTY_TIMEOUT_MS = 30_000

/** Throws KitError `unavailable` with what was found, where containers cannot be had. */
export async function findCgroups(mountPoint = '/sys/fs/cgroup'): Promise<CgroupHost> {
  const isV2 = await exists(join(mountPoint, 'cgroup.controllers'))
  if (isV2) {
    await checkControllers(join(mountPoint, 'cgroup.controllers'))
    return { version: 'v2', roots: [mountPoint] }
  }
  // In the folder of all hierarchies some names are links to others, as cpu to cpu,cpuacct.
  const entries = await readdir(mountPoint, { withFileTypes: true }).catch(() => [])
  const names = entries.filter((entry) => entry.isDirectory()).map(({ name }) => name)
  const roots: string[] = []
  for (const name of names) {
    if (await exists(join(mountPoint, name, 'cgroup.procs'))) roots.push(join(mountPoint, name))
  }
  if (names.includes('systemd') && names.includes('memory')) return { version: 'v1', roots }
  const found = roots.length === 0 ? 'no cgroups' : `only the cgroups ${names.join(', ')}`
  throw new KitError('unavailable', `Cannot run container machines: ${mountPoint} has ${found}`, {
    fix: 'use virtual machines: --machines uefi,bios',
  })
}

async function checkControllers(file: string): Promise<void> {
  const has = (await readFile(file, 'utf8')).trim().split(' ')
  const missing = V2_CONTROLLERS.filter((name) => !has.includes(name))
  if (missing.length === 0) return
  throw new KitError(
    'unavailable',
    `Cannot run container machines: cgroup v2 has no controller ${missing.join(', ')} here`,
    { fix: 'use virtual machines: --machines uefi,bios' },
  )
}

/** Sweeps up after labs that are no more, too. */
export async function makeCgroups(host: CgroupHost, machine: string): Promise<Cgroups> {
  const folders: string[] = []
  for (const root of host.roots) {
    const top = join(root, TOP)
    await sweep(top)
    const lab = join(top, `${process.pid}`)
    await mkdir(lab, { recursive: true })
    for (const folder of [root, top, lab]) await passOn(host, folder)
    const own = join(lab, machine)
    await mkdir(own, { recursive: true })
    folders.push(own)
  }
  return {
    version: host.version,
    folders,
    async remove() {
      for (const folder of folders) {
        await removeEmptied(folder)
        // The last machine takes the lab's own along, the last lab the top.
        await removeOne(join(folder, '..'))
        await removeOne(join(folder, '../..'))
      }
    },
  }
}

/** v2: children have the controllers that their parent passes on. v1: a cpuset is empty, and lets nobody in, until told otherwise. */
async function passOn({ version }: CgroupHost, folder: string): Promise<void> {
  if (version === 'v2') {
    await writeFile(
      join(folder, 'cgroup.subtree_control'),
      V2_CONTROLLERS.map((name) => `+${name}`).join(' '),
    )
    return
  }
  if (!(await exists(join(folder, 'cpuset.cpus')))) return
  await writeFile(join(folder, 'cgroup.clone_children'), '1')
  for (const name of ['cpuset.cpus', 'cpuset.mems']) {
    const file = join(folder, name)
    if ((await readFile(file, 'utf8')).trim() !== '') continue
    await writeFile(file, await readFile(join(folder, '..', name), 'utf8'))
  }
}

async function sweep(top: string): Promise<void> {
  for (const pid of await readdir(top).catch(() => [])) {
    if (!/^\d+$/.test(pid) || (await exists(`/proc/${pid}`))) continue
    await removeTree(join(top, pid))
  }
}

async function removeEmptied(folder: string): Promise<void> {
  await pollUntil(async () => (await removeTree(folder)) || undefined, {
    everyMs: 20,
    timeoutMs: EMPTY_TIMEOUT_MS,
    late: () => new KitError('unavailable', `Cannot remove the cgroup ${folder}: something still runs in it`),
  })
}

/** The deepest first; whether all of it is gone. */
async function removeTree(folder: string): Promise<boolean> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => [])
  for (const entry of entries) {
    if (entry.isDirectory()) await removeTree(join(folder, entry.name))
  }
  return removeOne(folder)
}

async function removeOne(folder: string): Promise<boolean> {
  try {
    await rmdir(folder)
    return true
  } catch (error) {
    return systemErrorCode(error) === 'ENOENT'
  }
}

function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  )
}
