// A virtual machine's TPM: a QEMU that stands still is enough to switch one on.

import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import test, { type ExecutionContext } from 'ava'

import { KitError } from '#lib/errors.ts'
import { parseMac } from '#lib/mac.ts'
import { pollUntil } from '#lib/retry.ts'
import { startSwtpm } from '#testing/swtpm.ts'

import { addBridge, createNetns } from './netns.ts'
import type { MachineSpec } from './qemu.ts'
import { createTpm } from './tpm.ts'
import { WallSockets } from './wall-sockets.ts'

const MAC = parseMac('52:54:00:77:01:01')
const SPEC: MachineSpec = { name: 'one', mac: MAC, firmware: 'bios', accelerator: 'tcg', memoryMiB: 64 }

async function temporaryFolder(t: ExecutionContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'kit-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  return folder
}

/** Its endorsement key, asked while its machine is off. */
async function endorsementKey(folder: string): Promise<string> {
  const tpm = await startSwtpm(folder)
  try {
    await tpm.run('tpm2_createek', '-G', 'rsa', '-c', 'ek.ctx', '-u', 'ek.pub')
    return (await tpm.read('ek.pub')).toString('hex')
  } finally {
    await tpm.stop()
  }
}

test('WallSockets gives a machine its TPM again after a restart and after the plug was pulled', async (t) => {
  const folder = await temporaryFolder(t)
  const netns = await createNetns()
  await addBridge(netns, { name: 'kit0', address: '10.77.0.1/24' })
  const sockets = new WallSockets({ netns, bridge: 'kit0', folder })
  t.teardown(async () => {
    await sockets.powerOffAll()
    await netns.stop()
  })
  const stateFolder = join(folder, 'state')
  const before = await endorsementKey(folder)
  const spec: MachineSpec = { ...SPEC, tpm: { stateFolder }, extraArguments: ['-S'] }
  const pid = () => readFile(join(stateFolder, 'swtpm.pid'), 'utf8').catch(() => '')

  const first = await sockets.powerOn(spec)
  const firstPid = await pid()
  await first.reset()
  const secondPid = await pollUntil(
    async () => {
      const now = await pid()
      return now === '' || now === firstPid ? undefined : now
    },
    { everyMs: 50, timeoutMs: 30_000, late: () => new KitError('unavailable', 'it did not restart') },
  )
  await first.kill()
  t.throws(() => process.kill(Number(secondPid), 0), { code: 'ESRCH' }, 'it ends with its machine')

  const second = await sockets.powerOn(spec)
  await second.kill()
  t.is(await endorsementKey(folder), before)
})

test('createTpm() says what swtpm complains of', async (t) => {
  const folder = await temporaryFolder(t)
  const tpm = createTpm({ stateFolder: join(folder, 'state'), socket: join(folder, 'none', 'socket') })
  await t.throwsAsync(tpm.powerOn(), { message: /^Cannot start swtpm: .*socket/s })
  await tpm.powerOff()
})
