// The lab's router outlives nobody.

import { spawn } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import test from 'ava'

import { KitError } from '#lib/errors.ts'
import { pollUntil } from '#lib/retry.ts'
import { linesOf } from '#testing/lan.ts'

const SCRIPT = `
const { createNetns, addBridge } = await import('${new URL('netns.ts', import.meta.url)}')
const { startRouter } = await import('${new URL('router.ts', import.meta.url)}')
const netns = await createNetns()
await addBridge(netns, { name: 'lan0', address: '10.77.0.2/24' })
const pool = { poolFirst: '10.77.0.100', poolLast: '10.77.0.150' }
const folder = process.argv[1]
const router = startRouter({ netns, interfaceName: 'lan0', address: '10.77.0.2', folder, ...pool })
console.log('router', router.pid)
setInterval(() => {}, 60_000)
`

const poll = <T>(what: string, probe: () => Promise<T | undefined>) =>
  pollUntil(probe, { everyMs: 20, timeoutMs: 10_000, late: () => new KitError('internal', `Never: ${what}`) })

test('startRouter() starts a dnsmasq that ends with the process that started it, even by kill -9', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'kit-router-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const owner = spawn('setpriv', ['--pdeathsig', 'KILL', process.execPath, '-e', SCRIPT, folder])
  const pid = (await linesOf(owner).next(/^router \d+$/)).split(' ')[1]
  await poll('dnsmasq answers', async () => {
    const log = await readFile(join(folder, 'router.log'), 'utf8').catch(() => '')
    return log.includes('DHCP, IP range') || undefined
  })
  owner.kill('SIGKILL')
  await poll('dnsmasq has ended', async () => {
    const name = await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '')
    return name !== 'dnsmasq\n' || undefined
  })
  t.pass()
})
