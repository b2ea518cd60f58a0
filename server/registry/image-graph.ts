// What an image consists of: its manifests and blobs, found by walking from its root.

import { KitError } from '#lib/errors.ts'

import {
  type Content,
  type Descriptor,
  describePlatform,
  findPlatform,
  isManifestType,
  MANIFEST_MAX_BYTES,
  mayBeAbsent,
  type Platform,
  parseContent,
  sha256Of,
  shortDigest,
} from './oci-content.ts'

export interface BlobSource {
  /** Undefined for one that is not there. */
  sizeOf(sha256: string): Promise<number | undefined>
  /** Only what was there; no more than a manifest may have. */
  read(sha256: string): Promise<Uint8Array>
}

export interface Manifest {
  readonly mediaType: string
  readonly sizeBytes: number
  /** Of an index: the manifest for machines of this server's kind. */
  readonly preferred?: string
}

export interface ImageGraph {
  readonly mediaType: string
  /** By sha256 (hex), as the blobs. */
  readonly manifests: ReadonlyMap<string, Manifest>
  /** All that it needs, the manifests too: bytes of each. */
  readonly blobs: ReadonlyMap<string, number>
  readonly platforms: readonly string[]
}

/** Something that the image needs is not there: an image in an index may be left out for that, one by itself may not. */
class MissingBlob extends KitError {}

/** An index may name indexes; nobody's do so thrice. */
const DEPTH_MAX = 4
/** Of one image with all its platforms. */
const BLOBS_MAX = 10_000
const MANIFESTS_MAX = 500
/** What images are built for here (setting of the recipe). */
const PREFERRED = 'linux/amd64'

/** Of an index, what is there; at least one of its images. Throws KitError `invalid-input`; `what` names the image. */
export async function walkImage(root: Descriptor, source: BlobSource, what: string): Promise<ImageGraph> {
  const found: Found = { manifests: new Map(), blobs: new Map(), platforms: [] }
  const { mediaType } = await walk(
    root,
    { source, what, depth: 0, budget: { manifests: MANIFESTS_MAX } },
    found,
  )
  // What is attached to an image in its index is not made for any machine.
  const platforms = [...new Set(found.platforms)].filter((platform) => platform !== 'unknown/unknown')
  return { ...found, mediaType, platforms }
}

interface Found {
  readonly manifests: Map<string, Manifest>
  readonly blobs: Map<string, number>
  readonly platforms: string[]
}

interface Walking {
  readonly source: BlobSource
  readonly what: string
  readonly depth: number
  /** Shared by the whole walk: indexes that name each other often must not take for ever. */
  readonly budget: { manifests: number }
}

async function walk(descriptor: Descriptor, walking: Walking, found: Found): Promise<Content> {
  const { source, what, depth } = walking
  const sha256 = sha256Of(descriptor)
  if (walking.budget.manifests-- === 0)
    throw cannotImport(what, `it has more than ${MANIFESTS_MAX} manifests`)
  if (depth > DEPTH_MAX) throw cannotImport(what, `its indexes lie ${depth} deep`)
  if (descriptor.size > MANIFEST_MAX_BYTES)
    throw cannotImport(what, `${descriptor.size} bytes are too many for a manifest`)
  await addBlob(descriptor, walking, found)
  const content = parseContent(
    await source.read(sha256),
    descriptor.mediaType,
    `${what}, manifest ${shortDigest(sha256)}`,
  )
  const manifest = { mediaType: content.mediaType, sizeBytes: descriptor.size }
  found.manifests.set(sha256, manifest)
  if (content.kind === 'image') {
    await walkParts(content, walking, found)
    found.platforms.push(describePlatform(await platformOf(descriptor, content, source)))
  } else {
    const preferred = await walkChildren(content.manifests, walking, found)
    found.manifests.set(sha256, { ...manifest, ...(preferred !== undefined && { preferred }) })
  }
  return content
}

async function walkParts(
  { config, layers }: Extract<Content, { kind: 'image' }>,
  walking: Walking,
  found: Found,
): Promise<void> {
  for (const part of [config, ...layers]) {
    const isElsewhere = mayBeAbsent(part) && (await walking.source.sizeOf(sha256Of(part))) === undefined
    if (!isElsewhere) await addBlob(part, walking, found)
  }
}

/** Each one whole or not at all. Returns the one that is preferred. */
async function walkChildren(
  children: readonly Descriptor[],
  walking: Walking,
  found: Found,
): Promise<string | undefined> {
  let preferred: string | undefined
  let missing: KitError | undefined
  let isAny = false
  for (const child of children) {
    const own: Found = { manifests: new Map(), blobs: new Map(), platforms: [] }
    try {
      if (isManifestType(child.mediaType)) await walk(child, { ...walking, depth: walking.depth + 1 }, own)
      else await addBlob(child, walking, own)
    } catch (error) {
      if (!(error instanceof MissingBlob)) throw error
      missing ??= error
      continue
    }
    isAny ||= own.manifests.size > 0
    if (own.platforms.includes(PREFERRED) && preferred === undefined) preferred = sha256Of(child)
    for (const [sha256, manifest] of own.manifests) found.manifests.set(sha256, manifest)
    for (const [sha256, bytes] of own.blobs) found.blobs.set(sha256, bytes)
    found.platforms.push(...own.platforms)
    boundBlobs(walking, found)
  }
  if (!isAny) throw missing ?? cannotImport(walking.what, 'its index names no image')
  return preferred
}

async function addBlob(descriptor: Descriptor, walking: Walking, found: Found): Promise<void> {
  const sha256 = sha256Of(descriptor)
  const size = await walking.source.sizeOf(sha256)
  if (size === undefined) {
    throw new MissingBlob(
      'invalid-input',
      `Cannot use ${walking.what}: its blob ${shortDigest(sha256)} is missing`,
    )
  }
  if (size !== descriptor.size) {
    throw cannotImport(
      walking.what,
      `its blob ${shortDigest(sha256)} has ${size} bytes, not the ${descriptor.size} that were said`,
    )
  }
  found.blobs.set(sha256, size)
  boundBlobs(walking, found)
}

function boundBlobs({ what }: Walking, { blobs }: Found): void {
  if (blobs.size > BLOBS_MAX) throw cannotImport(what, `it needs more than ${BLOBS_MAX} blobs`)
}

async function platformOf(
  { platform }: Descriptor,
  { config }: Extract<Content, { kind: 'image' }>,
  source: BlobSource,
): Promise<Platform> {
  if (platform !== undefined) return platform
  const known =
    config.size <= MANIFEST_MAX_BYTES ? findPlatform(await source.read(sha256Of(config))) : undefined
  return known ?? { os: 'unknown', architecture: 'unknown' }
}

function cannotImport(what: string, why: string): KitError {
  return new KitError('invalid-input', `Cannot use ${what}: ${why}`)
}
