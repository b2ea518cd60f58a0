// A machine that is a container: it goes the way of every machine, keeps what a machine keeps, and leaves nothing behind.

import { once } from 'node:events'
import { access, readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'

import test from 'ava'

import { findCgroups, makeCgroups } from '#lab/container-cgroups.ts'
import { startChild } from '#lib/child.ts'
import { KitError } from '#lib/errors.ts'
import { commandOutput } from '#lib/process.ts'
import { pollUntil } from '#lib/retry.ts'

import { machineFiles } from '../qemu-tests/profile-files.ts'
import { scratchFolder } from '../qemu-tests/test-lan.ts'
import { FIRST, startContainerLan, testedImage } from './container-lan.ts'

const MARKS = '/persist/mark /var/lib/etcd/mark /var/lib/containerd/mark /root/mark'
const LEFT = `ls ${MARKS} 2>/dev/null || true`

test('a container machine netboots, is paired, follows its files, and keeps through a restart and a powerwash what it should', async (t) => {
  const lan = await startContainerLan(t, {
    files: {
      'roles/worker/root/etc/kit-test/role': 'worker\n',
      ...machineFiles(FIRST.mac, { role: 'worker\n', hostname: 'one\n', ip: '10.77.0.50\n' }),
    },
  })
  const machine = await lan.powerOn(FIRST)
  const first = await lan.untilRunning(FIRST.mac)
  t.like(first, { address: '10.77.0.50', firmware: 'uefi-x64', uuid: FIRST.uuid, hostname: 'one', drift: [] })
  t.is(first.identity?.tier, 'paired')
  t.is(first.bundleDigest, first.wantedBundle)
  t.is(first.slot, undefined, 'it has no slots, and says of none')
  t.is(await lan.onMachine(first, 'hostname; cat /etc/kit-test/role'), 'one\nworker')
  t.is(await lan.onMachine(first, 'systemctl is-system-running --wait'), 'running')
  t.notRegex(machine.serial.text, /62-persist: (cannot|there is no)/)

  await lan.writeProfile({ 'roles/worker/root/etc/kit-test/role': 'worker, changed\n' })
  await lan.waitFor('bundle-applied', FIRST.mac)
  t.is(await lan.onMachine(first, 'cat /etc/kit-test/role'), 'worker, changed')

  const restarted = await lan.fromNow()
  await lan.onMachine(first, `touch ${MARKS}; systemctl reboot`)
  const second = await restarted.untilRunning(FIRST.mac)
  t.not(second.bootId, first.bootId)
  t.is(await lan.onMachine(second, LEFT), '/persist/mark\n/var/lib/containerd/mark\n/var/lib/etcd/mark')

  const reset = await lan.fromNow()
  await machine.reset()
  const third = await reset.untilRunning(FIRST.mac)
  t.is(await lan.onMachine(third, LEFT), '/persist/mark\n/var/lib/containerd/mark\n/var/lib/etcd/mark')

  const washed = await lan.fromNow()
  await lan.fleet.powerwash(FIRST.mac)
  await machine.reset()
  await washed.waitFor('checked-in', FIRST.mac, ({ data }) => data['to'] === 'installing')
  const fourth = await washed.untilRunning(FIRST.mac)
  t.is(await lan.onMachine(fourth, LEFT), '/persist/mark\n/var/lib/etcd/mark')
  t.is((await lan.events('identity-issued', FIRST.mac)).length, 1, 'its key is kept')

  await machine.kill()
  t.deepEqual(await leftCgroups(process.pid), [])
})

test('a container machine ends with its lab, however that ends', async (t) => {
  const folder = await scratchFolder(t)
  const lab = startChild(
    process.execPath,
    ['--input-type=module-typescript', '--eval', labProgram(folder, await testedImage())],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
  t.teardown(() => lab.kill())
  await once(lab.process.stdout ?? lab.process, 'data')
  t.not((await leftCgroups(lab.pid)).length, 0)
  await lab.kill()
  // Its processes are gone when no cgroup of the machine has any; their mounts and network went with them.
  await pollUntil(async () => ((await processesIn(lab.pid)) === '' ? true : undefined), {
    everyMs: 50,
    timeoutMs: 60_000,
    late: () => new KitError('unavailable', 'The machine outlives its lab'),
  })
  t.is(
    await commandOutput('losetup', ['--list', '--noheadings', '--output', 'BACK-FILE']).then((list) =>
      list.includes(folder),
    ),
    false,
  )
  // The empty cgroups wait for the next lab.
  const next = await makeCgroups(await findCgroups(), 'next')
  t.deepEqual(await leftCgroups(lab.pid), [])
  await next.remove()
  t.deepEqual(await leftCgroups(process.pid), [])
})

/** Says so once a machine is on its way into its system, and goes on. */
function labProgram(folder: string, image: string): string {
  return `
    import { parseLabMachines } from ${JSON.stringify(import.meta.resolve('#lab/lab-machines.ts'))}
    import { startLabNetwork } from ${JSON.stringify(import.meta.resolve('#lab/lab-network.ts'))}
    import { writeTree } from ${JSON.stringify(import.meta.resolve('../qemu-tests/profile-files.ts'))}
    const [machine] = parseLabMachines('container')
    const folder = ${JSON.stringify(folder)}
    await writeTree(folder + '/profiles', {
      'roles/worker/root/etc/kit-test': 'worker\\n', 'machines/${FIRST.mac.replaceAll(':', '-')}/role': 'worker\\n',
    })
    const network = await startLabNetwork({
      folder: folder + '/lab', profilesFolder: folder + '/profiles', mode: 'server',
      environment: { KATESKIT_IMAGES_IMPORT: ${JSON.stringify(image)} },
    })
    const container = await network.powerOnContainer(machine)
    await container.waitFor(/Started kit-agent.service/, 120_000)
    process.stdout.write('up')
    await container.exited`
}

/** The cgroups of that lab's machines. */
async function leftCgroups(pid: number): Promise<readonly string[]> {
  const { roots } = await findCgroups()
  const left: string[] = []
  for (const root of roots) {
    const folder = join(root, 'kateskit-lab', `${pid}`)
    const there = await access(folder).then(
      () => true,
      () => false,
    )
    if (there) left.push(folder)
  }
  return left
}

/** Their ids, of all processes below. */
async function processesIn(pid: number): Promise<string> {
  let found = ''
  for (const folder of await leftCgroups(pid)) {
    for (const name of await readdir(folder, { recursive: true })) {
      if (name.endsWith('cgroup.procs')) found += await readFile(join(folder, name), 'utf8').catch(() => '')
    }
  }
  return found.trim()
}
