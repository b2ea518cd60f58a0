// Overlays over real folders, and what programs nobody here wrote make of their archives.

import { execFile } from 'node:child_process'
import { lstat, mkdir, mkdtemp, readdir, readFile, readlink, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'

import type { ExecutionContext } from 'ava'

import { KitError } from '#lib/errors.ts'
import { silentLog } from '#lib/log.ts'
import { type Mac, parseMac } from '#lib/mac.ts'
import type { Event, NewEvent } from '#machine/event.ts'
import type { Bundle } from '#machine/ports.ts'
import { createOverlays, type OverlaysOptions } from '#overlays/overlays.ts'

export const run = promisify(execFile)

export const mac = parseMac('02:4b:69:74:00:01')
export const other = parseMac('02:4b:69:74:00:02')

export type Files = Readonly<Record<string, string>>

async function makeHome(t: ExecutionContext): Promise<string> {
  const home = await mkdtemp(join(tmpdir(), 'kit-overlays-'))
  t.teardown(() => rm(home, { recursive: true }))
  return home
}

export async function writeFiles(directory: string, files: Files): Promise<void> {
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(directory, name)), { recursive: true })
    await writeFile(join(directory, name), content)
  }
}

interface Setup extends Partial<OverlaysOptions> {
  readonly layers?: Readonly<Record<Mac, readonly string[]>>
}

/** Overlays over the layers `low` and `high`, and what they told. */
export async function makeOverlays(t: ExecutionContext, files: Files, { layers, ...options }: Setup = {}) {
  const home = await makeHome(t)
  const directory = join(home, 'bundles')
  const told: NewEvent[] = []
  await mkdir(join(home, 'low'))
  await mkdir(join(home, 'high'))
  await writeFiles(home, files)
  const create = () =>
    createOverlays({
      directory,
      sources: {
        layersFor: (of) =>
          (layers?.[of] ?? ['low', 'high']).map((layer) => ({ layer, directory: join(home, layer) })),
      },
      events: {
        async append(event) {
          told.push(event)
          return { ...event, id: told.length, atMs: 0, data: event.data ?? {} } satisfies Event
        },
      },
      log: silentLog,
      graceMs: 0,
      ...options,
    })
  return { home, directory, told, overlays: create(), create }
}

/** What lies in the archive after unpacking, one line per path: kind, mode, owner, content. */
export async function unpack(t: ExecutionContext, { file }: Bundle, program: readonly string[] = ['tar']) {
  const target = await makeHome(t)
  const [command = 'tar', ...words] = program
  await run(command, [...words, '-xpf', file, '-C', target])
  return listTree(target)
}

export async function listTree(directory: string, prefix = ''): Promise<readonly string[]> {
  const lines: string[] = []
  for (const name of (await readdir(directory)).sort()) {
    const path = join(directory, name)
    const stats = await lstat(path)
    const owner = `${stats.uid}:${stats.gid}`
    const mode = (stats.mode & 0o7777).toString(8)
    if (stats.isSymbolicLink()) lines.push(`${prefix}${name} -> ${await readlink(path)} ${owner}`)
    else if (stats.isDirectory()) {
      lines.push(`${prefix}${name}/ ${mode} ${owner}`, ...(await listTree(path, `${prefix}${name}/`)))
    } else lines.push(`${prefix}${name} ${mode} ${owner} ${await readFile(path, 'utf8')}`)
  }
  return lines
}

export async function messagesOf(work: Promise<unknown>): Promise<readonly string[]> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  )
  return error instanceof KitError ? error.message.split('\n').slice(1) : [`not refused: ${error}`]
}
