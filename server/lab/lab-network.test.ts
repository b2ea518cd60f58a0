import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

import test, { type ExecutionContext } from 'ava'

import { startChild } from '#lib/child.ts'
import { createJsonHttp } from '#lib/json-http.ts'
import { commandOutput, onLines } from '#lib/process.ts'
import type { ImageView } from '#machine/release-ports.ts'
import { makeFolder, makeImage } from '#testing/image-folder.ts'

import { checkLab, type LabOptions, startLab } from './lab.ts'
import { parseLabMachines } from './lab-machines.ts'
import { labControlSocket, startLabNetwork } from './lab-network.ts'

const PROJECT = fileURLToPath(new URL('../..', import.meta.url))

/** A lab without machines, with no image: everything but what takes minutes. */
async function labOptions(t: ExecutionContext): Promise<LabOptions> {
  const folder = await mkdtemp(join(tmpdir(), 'kit-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  return {
    ...{ folder, machines: [], accelerator: 'tcg', memoryMiB: 128, port: 0, mode: 'server' },
    profilesFolder: join(PROJECT, 'profiles'),
  }
}

/** Processes, by their whole command lines, whose files lie in the folder. */
async function processesOf(folder: string): Promise<readonly string[]> {
  const all = await commandOutput('ps', ['-eww', '-o', 'args='])
  return all.split('\n').filter((line) => line.includes(folder))
}

test('startLab() leads to the API from the host, with a token, and leaves nothing behind', async (t) => {
  const options = await labOptions(t)
  const mounts = await readFile('/proc/self/mounts', 'utf8')
  const lab = await startLab({ ...options, machines: parseLabMachines('bios,bios') })
  const api = `${lab.apiUrl}/api/v1/machines`
  t.is((await fetch(api)).status, 401)
  const answer = await fetch(api, { headers: { authorization: `Bearer ${lab.token}` } })
  t.is(answer.status, 200)
  t.is((await processesOf(options.folder)).length, 2, 'the machines are on')
  await t.throwsAsync(startLab(options), { message: /another one runs there$/ })
  await t.throwsAsync(checkLab(options), { message: /another one runs there$/ })

  await lab.stop()
  await lab.stop() // a second Ctrl-C may come in the middle
  t.deepEqual(await processesOf(options.folder), [])
  t.is(await readFile('/proc/self/mounts', 'utf8'), mounts)
  await t.throwsAsync(fetch(api))
})

test('startLab() leaves nothing behind when its port is taken', async (t) => {
  const first = await startLab(await labOptions(t))
  t.teardown(() => first.stop())
  const options = await labOptions(t)
  const port = Number(new URL(first.apiUrl).port)
  await t.throwsAsync(startLab({ ...options, port }), {
    message: `Cannot open port ${port} on 127.0.0.1: another program uses it`,
  })
  t.deepEqual(await processesOf(options.folder), [])
})

test('a server killed with -9 comes back with what it knew, and the client goes on where it was', async (t) => {
  const { port: _, ...options } = await labOptions(t)
  const network = await startLabNetwork({ ...options, mode: 'proxy' })
  t.teardown(() => network.stop())
  const { server } = network
  const before = await server.client.lastEventId()
  const coming = server.client.waitForEvent(({ kind }) => kind === 'server-started', {
    afterId: before,
    timeoutMs: 20_000,
  })
  const token = await server.client.makeToken('kept')
  await server.kill9()
  t.is(await server.exited(), 'signal SIGKILL')
  await server.start()
  t.true((await coming).id > before)
  t.is(typeof token, 'string')
})

test('stable points at the image a lab was started with, whatever an earlier one left in the store', async (t) => {
  const { port: _, ...options } = await labOptions(t)
  const imagesAt = async (version: string, keepState: boolean) => {
    const environment = { KATESKIT_IMAGES_IMPORT: makeImage(makeFolder(t), version) }
    const network = await startLabNetwork({ ...options, environment, keepState })
    try {
      const http = createJsonHttp({ kind: 'socket', path: labControlSocket(options.folder) })
      const { images } = (await http.request('GET', '/api/v1/images')) as { images: readonly ImageView[] }
      return images.map((image) => [image.version, ...image.channels].join(' '))
    } finally {
      await network.stop()
    }
  }
  t.deepEqual(await imagesAt('0.2.0-first', false), ['0.2.0-first stable'])
  await rm(join(options.folder, 'state'), { recursive: true })
  t.deepEqual(await imagesAt('0.1.0-second', true), ['0.2.0-first', '0.1.0-second stable'])
  t.deepEqual(await imagesAt('0.1.0-third', false), ['0.1.0-third stable'])
})

test('a server that cannot start says where to read why', async (t) => {
  const options = await labOptions(t)
  await t.throwsAsync(
    startLabNetwork({ ...options, environment: { KATESKIT_DHCP_POOL: '1.2.3.4-1.2.3.5' } }),
    {
      message: 'Cannot start the server: it ended with exit code 2',
    },
  )
  t.regex(await readFile(join(options.folder, 'server.log'), 'utf8'), /Cannot lease 1\.2\.3\.4-1\.2\.3\.5/)
})

test('a lab that is killed with -9 leaves no process', async (t) => {
  const options = await labOptions(t)
  const program = `import { startLab } from ${JSON.stringify(import.meta.resolve('./lab.ts'))}
    import { parseLabMachines } from ${JSON.stringify(import.meta.resolve('./lab-machines.ts'))}
    const options = ${JSON.stringify(options)}
    await startLab({ ...options, machines: parseLabMachines('bios') })
    process.stdout.write('up\\n')`
  const parent = startChild(process.execPath, ['--input-type=module-typescript', '--eval', program], {
    cwd: dirname(fileURLToPath(import.meta.url)),
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  await new Promise<void>((up) => {
    if (parent.process.stdout) onLines(parent.process.stdout, () => up())
  })
  const children = (await commandOutput('ps', ['--ppid', String(parent.pid), '-o', 'pid=']))
    .trim()
    .split(/\s+/)
  t.is(children.length, 3, 'the namespace, the server and the machine')
  const gone = Promise.all(
    children.map((pid) =>
      commandOutput('tail', ['--sleep-interval=0.05', `--pid=${pid}`, '-f', '/dev/null']),
    ),
  )
  await parent.kill()
  t.is((await gone).length, 3)
  t.deepEqual(await processesOf(options.folder), [])
})
