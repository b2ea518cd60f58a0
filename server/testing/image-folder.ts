// Small image folders as the recipe leaves them, and a store to bring them into.

import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

import type { ExecutionContext } from 'ava'

import { createImageStore } from '#images/store.ts'
import { type Clock, systemClock } from '#lib/clock.ts'
import { type Log, silentLog } from '#lib/log.ts'
import type { NewEvent } from '#machine/event.ts'
import type { SignedManifest } from '#machine/ports.ts'

export const IMAGE_FILES = ['vmlinuz', 'initrd.img', 'root.squashfs', 'ipxe/snponly.efi']

export const sha256 = (content: string | Buffer) => createHash('sha256').update(content).digest('hex')

export function makeFolder(t: ExecutionContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'kit-images-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

type Contents = Readonly<Record<string, string | Buffer>>

/** The files hold their own names where nothing else is given. Returns the folder. */
export function makeImage(folder: string, version: string, contents: Contents = {}): string {
  const names = Object.fromEntries(IMAGE_FILES.map((name) => [name, name]))
  const all = Object.entries({ ...names, ...contents })
  for (const [name, content] of all) {
    mkdirSync(dirname(join(folder, name)), { recursive: true })
    writeFileSync(join(folder, name), content)
  }
  const files = all.map(([name, content]) => ({
    ...{ name, sizeBytes: Buffer.byteLength(content), sha256: sha256(content) },
  }))
  writeFileSync(join(folder, 'manifest.json'), JSON.stringify({ version, arch: 'amd64', files }))
  return folder
}

export interface MadeManifest {
  readonly files: readonly { readonly name: string; readonly sizeBytes: number; readonly sha256: string }[]
}

export function changeManifest(
  folder: string,
  change: (manifest: MadeManifest) => Readonly<Record<string, unknown>>,
): void {
  const file = join(folder, 'manifest.json')
  const manifest = JSON.parse(readFileSync(file, 'utf8')) as MadeManifest
  writeFileSync(file, JSON.stringify({ ...manifest, ...change(manifest) }))
}

export interface StoreSetting {
  /** Holds images/ and keys/. */
  readonly home: string
  readonly importAtStart?: string
  readonly clock?: Clock
  readonly log?: Log
}

export type TestStore = Awaited<ReturnType<typeof openImageStore>>

/** Started; stopped with the test. */
export async function openImageStore(t: ExecutionContext, { home, ...options }: StoreSetting) {
  const events: NewEvent[] = []
  const store = createImageStore({
    directory: join(home, 'images'),
    keysDirectory: join(home, 'keys'),
    events: {
      append: async (event) => {
        events.push(event)
        return { id: events.length, atMs: 0, data: {}, ...event }
      },
    },
    clock: systemClock,
    log: silentLog,
    ...options,
  })
  t.teardown(() => store.stop())
  await store.start()
  return Object.assign(store, {
    events,
    kinds: () => events.map(({ kind }) => kind),
    /** An import, to its end. */
    bring: (source: string) => store.importDone(store.startImport(source)),
    versions: () => store.list().map(({ version }) => version),
  })
}

/** The names in images/<folder>. */
export function storedNames(home: string, folder: 'files' | 'incoming' | 'versions'): readonly string[] {
  return readdirSync(join(home, 'images', folder))
}

export function manifestOf(store: TestStore, version: string): SignedManifest {
  const manifest = store.manifest(version)
  if (manifest === undefined) throw new Error(`no manifest of ${version}`)
  return manifest
}
