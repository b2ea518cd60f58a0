// What `docker save` writes (manifest.json, configs and layers) as images of their own: it has no manifests, so they are made.

import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { pipeline } from 'node:stream/promises'

import { type Compression, compressionOf, decompressorsFor } from '#lib/decompress.ts'

import { type Archive, type ArchivedFile, type ArchiveOptions, cannotImport, readSmall } from './archive.ts'
import { type DockerImage, OCI_MANIFEST, parseDiffIds } from './oci-content.ts'

const CONFIG_TYPE = 'application/vnd.oci.image.config.v1+json'
const LAYER_TYPES = {
  none: 'application/vnd.oci.image.layer.v1.tar',
  gzip: 'application/vnd.oci.image.layer.v1.tar+gzip',
  zstd: 'application/vnd.oci.image.layer.v1.tar+zstd',
} as const satisfies Record<Compression, string>

export interface MadeImage {
  readonly manifest: ArchivedFile
  /** The manifest, the config, the layers. */
  readonly blobs: readonly ArchivedFile[]
}

/** The same bytes for the same archive, so the same digest. Throws KitError. */
export async function makeManifest(
  image: DockerImage,
  archive: Archive,
  options: ArchiveOptions,
): Promise<MadeImage> {
  const { shown, incoming } = options
  const config = await need(image.Config, archive, shown)
  const named = /[0-9a-f]{64}/.exec(basename(image.Config))?.[0]
  if (named !== undefined && named !== config.sha256)
    throw cannotImport(shown, `${JSON.stringify(image.Config.slice(0, 100))} is damaged`)
  const diffIds = parseDiffIds(await readSmall(config, shown), `${shown}, ${image.Config.slice(0, 100)}`)
  if (diffIds.length !== image.Layers.length)
    throw cannotImport(shown, `it has ${image.Layers.length} layers, not the ${diffIds.length} of the image`)
  const layers: { readonly file: ArchivedFile; readonly mediaType: string }[] = []
  for (const [index, name] of image.Layers.entries()) {
    const file = await need(name, archive, shown)
    layers.push({ file, mediaType: await checkLayer(file, diffIds[index] ?? '', { ...options, name }) })
  }
  const describe = ({ sha256, sizeBytes }: ArchivedFile, mediaType: string) => ({
    ...{ mediaType, digest: `sha256:${sha256}`, size: sizeBytes },
  })
  const text = JSON.stringify({
    ...{ schemaVersion: 2, mediaType: OCI_MANIFEST },
    config: describe(config, CONFIG_TYPE),
    layers: layers.map(({ file, mediaType }) => describe(file, mediaType)),
  })
  const sha256 = createHash('sha256').update(text).digest('hex')
  const file = join(incoming, `made-${sha256}`)
  await writeFile(file, text, { mode: 0o600 })
  const manifest = { file, sha256, sizeBytes: Buffer.byteLength(text) }
  return { manifest, blobs: [manifest, config, ...layers.map((layer) => layer.file)] }
}

async function need(name: string, archive: Archive, shown: string): Promise<ArchivedFile> {
  const found = await archive.find(name.replace(/^(\.\/)+/, ''))
  if (found !== undefined) return found
  throw cannotImport(shown, `${JSON.stringify(name.slice(0, 100))} is missing in it`)
}

/** Whether the layer is the one that the config names, whose digest is of its content uncompressed. Returns its media type. */
async function checkLayer(
  layer: ArchivedFile,
  diffId: string,
  { shown, signal, name }: ArchiveOptions & { readonly name: string },
): Promise<string> {
  const compression = await compressionOf(layer.file)
  let plain = layer.sha256
  if (compression !== 'none') {
    const hash = createHash('sha256')
    const steps = [createReadStream(layer.file), ...decompressorsFor(compression), hash]
    await pipeline(steps, { signal }).catch((error: unknown) => {
      signal.throwIfAborted()
      throw cannotImport(shown, `${JSON.stringify(name.slice(0, 100))} is damaged`, error)
    })
    plain = hash.digest('hex')
  }
  if (plain !== diffId) throw cannotImport(shown, `${JSON.stringify(name.slice(0, 100))} is damaged`)
  return LAYER_TYPES[compression]
}
