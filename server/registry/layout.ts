// The images of an archive: an OCI image layout, or what `docker save` writes.

import { parseReference } from '#machine/image-reference.ts'

import { type Archive, type ArchivedFile, type ArchiveOptions, cannotImport, readSmall } from './archive.ts'
import { makeManifest } from './docker-archive.ts'
import type { BlobSource } from './image-graph.ts'
import { type ArchivedImage, readNames } from './naming.ts'
import { OCI_MANIFEST, parseDockerArchive, parseLayoutIndex, shortDigest } from './oci-content.ts'

export interface Contents extends BlobSource {
  readonly images: readonly ArchivedImage[]
  /** A blob of these images, once it was asked for. */
  fileOf(sha256: string): ArchivedFile | undefined
}

const INDEX = 'index.json'
const DOCKER = 'manifest.json'

/** Throws KitError. Blobs are looked at when they are asked for. */
export async function readContents(archive: Archive, options: ArchiveOptions): Promise<Contents> {
  const { shown } = options
  const index = await archive.find(INDEX)
  if (index !== undefined) {
    const descriptors = parseLayoutIndex(
      await readSmall(index, `${INDEX} of ${shown}`),
      `${INDEX} of ${shown}`,
    )
    const images = descriptors.map((descriptor) => ({ descriptor, ...readNames(descriptor) }))
    return contentsOf(images, new Map(), (sha256) => findBlob(sha256, archive, shown))
  }
  const docker = await archive.find(DOCKER)
  if (docker !== undefined) return readDocker(docker, archive, options)
  throw cannotImport(
    shown,
    `it is no OCI image layout and nothing that docker save writes: it has no ${INDEX}`,
  )
}

async function readDocker(
  manifest: ArchivedFile,
  archive: Archive,
  options: ArchiveOptions,
): Promise<Contents> {
  const what = `${DOCKER} of ${options.shown}`
  const blobs = new Map<string, ArchivedFile>()
  const images: ArchivedImage[] = []
  for (const image of parseDockerArchive(await readSmall(manifest, what), what)) {
    const made = await makeManifest(image, archive, options)
    for (const blob of made.blobs) blobs.set(blob.sha256, blob)
    const { sha256, sizeBytes: size } = made.manifest
    const descriptor = { mediaType: OCI_MANIFEST, digest: `sha256:${sha256}`, size }
    images.push({ descriptor, references: (image.RepoTags ?? []).map(parseReference) })
  }
  return contentsOf(images, blobs, async () => undefined)
}

function contentsOf(
  images: readonly ArchivedImage[],
  blobs: Map<string, ArchivedFile>,
  find: (sha256: string) => Promise<ArchivedFile | undefined>,
): Contents {
  const findOnce = async (sha256: string) => {
    const known = blobs.get(sha256) ?? (await find(sha256))
    if (known !== undefined) blobs.set(sha256, known)
    return known
  }
  return {
    images,
    fileOf: (sha256) => blobs.get(sha256),
    sizeOf: async (sha256) => (await findOnce(sha256))?.sizeBytes,
    async read(sha256) {
      const found = await findOnce(sha256)
      return found === undefined ? new Uint8Array() : readSmall(found, `blob ${shortDigest(sha256)}`)
    },
  }
}

/** By its name, and only when it is what it is called. */
async function findBlob(sha256: string, archive: Archive, shown: string): Promise<ArchivedFile | undefined> {
  const found = await archive.find(`blobs/sha256/${sha256}`)
  if (found === undefined || found.sha256 === sha256) return found
  throw cannotImport(shown, `its blob ${shortDigest(sha256)} is damaged: its sha256 is ${found.sha256}`)
}
