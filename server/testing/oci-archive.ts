// Container images made by hand: layouts, what `docker save` writes, and a registry to bring them into.

import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { gzipSync, zstdCompressSync } from 'node:zlib'

import type { ExecutionContext } from 'ava'
import * as tar from 'tar-stream'

import { type Clock, systemClock } from '#lib/clock.ts'
import { type Log, silentLog } from '#lib/log.ts'
import { createRegistry } from '#registry/registry.ts'

export const digestOf = (bytes: string | Buffer) => createHash('sha256').update(bytes).digest('hex')

/** Name in the archive → content, or the target of a link. */
export type Files = Record<string, string | Buffer | { readonly symlink: string } | { readonly link: string }>

export function tempFolder(t: ExecutionContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'kit-oci-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

export const INDEX = 'application/vnd.oci.image.index.v1+json'
export const MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
const CONFIG = 'application/vnd.oci.image.config.v1+json'
const LAYER = 'application/vnd.oci.image.layer.v1.tar+gzip'

export interface MadeDescriptor {
  mediaType: string
  digest: string
  size: number
  annotations?: Record<string, string>
  platform?: { os: string; architecture: string }
}

/** A layout under way: blobs are put in, then named. */
export class Layout {
  readonly files: Files = { 'oci-layout': '{"imageLayoutVersion":"1.0.0"}' }
  readonly manifests: MadeDescriptor[] = []

  blob(content: string | Buffer, mediaType: string): MadeDescriptor {
    const sha256 = digestOf(content)
    this.files[`blobs/sha256/${sha256}`] = content
    return { mediaType, digest: `sha256:${sha256}`, size: Buffer.byteLength(content) }
  }

  json(value: unknown, mediaType: string): MadeDescriptor {
    return this.blob(JSON.stringify(value), mediaType)
  }

  /** An image of which each layer is some text. */
  image(layers: readonly (string | Buffer)[], architecture = 'amd64'): MadeDescriptor {
    const config = { os: 'linux', architecture, rootfs: { type: 'layers', diff_ids: [] } }
    return this.json(
      {
        ...{ schemaVersion: 2, mediaType: MANIFEST, config: this.json(config, CONFIG) },
        layers: layers.map((layer) => this.blob(layer, LAYER)),
      },
      MANIFEST,
    )
  }

  index(images: Readonly<Record<string, MadeDescriptor>>): MadeDescriptor {
    const manifests = Object.entries(images).map(([architecture, descriptor]) => ({
      ...descriptor,
      platform: { os: 'linux', architecture },
    }))
    return this.json({ schemaVersion: 2, mediaType: INDEX, manifests }, INDEX)
  }

  /** With the name as skopeo writes it. */
  name(descriptor: MadeDescriptor, name?: string): this {
    const annotations = name === undefined ? {} : { 'org.opencontainers.image.ref.name': name }
    this.manifests.push({ ...descriptor, annotations })
    return this
  }

  without({ digest }: MadeDescriptor): this {
    delete this.files[blobName(digest)]
    return this
  }

  build(): Files {
    return { 'index.json': JSON.stringify({ schemaVersion: 2, manifests: this.manifests }), ...this.files }
  }
}

export const blobName = (digest: string) => `blobs/sha256/${digest.slice('sha256:'.length)}`

/** A layout of one image. */
export function oneImage(name: string | undefined, ...layers: readonly string[]): Files {
  const layout = new Layout()
  return layout.name(layout.image(layers), name).build()
}

/** `name` with its compression, as `x.tar.gz`. Returns the file. */
export async function writeTar(
  folder: string,
  name: string,
  files: Files,
  extra: readonly Parameters<tar.Pack['entry']>[0][] = [],
): Promise<string> {
  const pack = tar.pack()
  const packed = (async () => {
    const chunks: Uint8Array[] = []
    for await (const chunk of pack as AsyncIterable<Uint8Array>) chunks.push(chunk)
    return Buffer.concat(chunks)
  })()
  for (const [path, content] of Object.entries(files)) {
    if (typeof content === 'string' || Buffer.isBuffer(content)) pack.entry({ name: path }, content)
    else if ('symlink' in content) pack.entry({ name: path, type: 'symlink', linkname: content.symlink })
    else pack.entry({ name: path, type: 'link', linkname: content.link })
  }
  for (const header of extra) pack.entry(header)
  pack.finalize()
  const plain = await packed
  const file = join(folder, name)
  const compress = name.endsWith('gz') ? gzipSync : name.endsWith('.zst') ? zstdCompressSync : Buffer.from
  writeFileSync(file, compress(plain))
  return file
}

export function writeFolder(folder: string, files: Files): string {
  for (const [path, content] of Object.entries(files)) {
    if (typeof content !== 'string' && !Buffer.isBuffer(content))
      throw new Error(`${path}: a folder of files`)
    mkdirSync(dirname(join(folder, path)), { recursive: true })
    writeFileSync(join(folder, path), content)
  }
  return folder
}

export interface DockerSaved {
  readonly tags: readonly string[]
  readonly layers: readonly (string | Buffer)[]
  /** What the config says of them; their own sha256 unless given. */
  readonly diffIds?: readonly string[]
}

/** As `docker save` has it: layers plain, configs under their digests. */
export function dockerSaved(...images: readonly DockerSaved[]): Files {
  const files: Files = {}
  const manifest = images.map(({ tags, layers, diffIds }) => {
    const ids = diffIds ?? layers.map((layer) => digestOf(layer))
    const config = JSON.stringify({
      ...{ os: 'linux', architecture: 'amd64' },
      rootfs: { type: 'layers', diff_ids: ids.map((id) => `sha256:${id}`) },
    })
    files[`${digestOf(config)}.json`] = config
    const names = layers.map((layer) => {
      const name = `${digestOf(layer)}/layer.tar`
      files[name] = layer
      return name
    })
    return { Config: `${digestOf(config)}.json`, RepoTags: tags, Layers: names }
  })
  return { 'manifest.json': JSON.stringify(manifest), ...files }
}

export interface RegistrySetting {
  readonly directory?: string
  readonly importFrom?: string
  readonly clock?: Clock
  readonly log?: Log
}

/** Started; stopped with the test. */
export async function openRegistry(t: ExecutionContext, options: RegistrySetting = {}) {
  const directory = options.directory ?? join(tempFolder(t), 'registry')
  const registry = createRegistry({ clock: systemClock, log: silentLog, ...options, directory })
  t.teardown(() => registry.stop())
  await registry.start()
  return Object.assign(registry, {
    directory,
    /** Resolves with the names. */
    bring: (source: string, name?: string) => registry.importDone(registry.startImport(source, name)),
    names: () => registry.list().map(({ reference }) => reference),
    stored: (folder: 'blobs' | 'references' | 'incoming') => readdirSync(join(directory, folder)),
  })
}
