// What is in a manifest, an index, an image's config: parsed, bounded, and nothing believed that was not said.

import * as z from 'zod'

import { KitError } from '#lib/errors.ts'

/** Larger ones need not be taken (distribution spec 1.1, "Pushing manifests"). */
export const MANIFEST_MAX_BYTES = 4 * 1024 * 1024

const OCI_INDEX = 'application/vnd.oci.image.index.v1+json'
export const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
const DOCKER_LIST = 'application/vnd.docker.distribution.manifest.list.v2+json'
const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json'

const INDEX_TYPES = [OCI_INDEX, DOCKER_LIST]
const IMAGE_TYPES = [OCI_MANIFEST, DOCKER_MANIFEST]

const DIGEST = /^sha256:([0-9a-f]{64})$/
/** More than any image has; an index of so many images is one of an attacker. */
const ENTRIES_MAX = 1000
/** A media type of an odd shape would become a header of ours. */
const mediaType = z.string().regex(/^[A-Za-z0-9][\w.+-]{0,126}\/[\w.+-]{1,126}$/)
const word = z.string().max(64)

const platformShape = z.object({
  os: word,
  architecture: word,
  variant: word.exactOptional(),
})

const descriptorShape = z.object({
  mediaType,
  digest: z.string().regex(DIGEST, { error: 'only sha256 digests are known here' }),
  size: z.int().nonnegative(),
  platform: platformShape.exactOptional(),
  annotations: z.record(z.string(), z.string()).exactOptional(),
})

const contentShape = z.object({
  schemaVersion: z.literal(2),
  mediaType: mediaType.exactOptional(),
  config: descriptorShape.exactOptional(),
  layers: z.array(descriptorShape).max(ENTRIES_MAX).exactOptional(),
  manifests: z.array(descriptorShape).max(ENTRIES_MAX).exactOptional(),
})

const configShape = z.object({
  os: word.default('unknown'),
  architecture: word.default('unknown'),
  variant: word.exactOptional(),
})

export type Descriptor = z.infer<typeof descriptorShape>
export type Platform = z.infer<typeof platformShape>

export type Content =
  | { readonly kind: 'index'; readonly mediaType: string; readonly manifests: readonly Descriptor[] }
  | {
      readonly kind: 'image'
      readonly mediaType: string
      readonly config: Descriptor
      readonly layers: readonly Descriptor[]
    }

/** Hex. */
export function sha256Of({ digest }: Pick<Descriptor, 'digest'>): string {
  return digest.slice('sha256:'.length)
}

export function isManifestType(type: string): boolean {
  return INDEX_TYPES.includes(type) || IMAGE_TYPES.includes(type)
}

/** Layers that the makers of some images do not let others hand out: they come from elsewhere. */
export function mayBeAbsent({ mediaType: type }: Descriptor): boolean {
  return type.includes('.foreign.') || type.includes('.nondistributable.')
}

export function shortDigest(sha256: string): string {
  return `sha256:${sha256.slice(0, 12)}…`
}

export function describePlatform({ os, architecture, variant }: Platform): string {
  return [os, architecture, ...(variant === undefined ? [] : [variant])].join('/')
}

/**
 * A manifest or an index, whichever it is; `declared` is the media type by which it was pointed at. Throws KitError
 * `invalid-input`; `what` names it.
 */
export function parseContent(bytes: Uint8Array, declared: string, what: string): Content {
  const value = parseShape(contentShape, bytes, what)
  const { config, layers, manifests } = value
  // One that could be read in two ways would be another image to somebody else (CVE-2021-41190).
  const isIndex = manifests !== undefined
  if (isIndex === (layers !== undefined || config !== undefined))
    throw cannotUse(what, 'it is neither an image nor an index')
  const [fitting, usual] = isIndex ? [INDEX_TYPES, OCI_INDEX] : [IMAGE_TYPES, OCI_MANIFEST]
  const own = value.mediaType ?? (fitting.includes(declared) ? declared : usual)
  if (!fitting.includes(own)) throw cannotUse(what, `its media type is ${own}`)
  if (isManifestType(declared) && declared !== own)
    throw cannotUse(what, `its media type is ${own}, not ${declared} as was said of it`)
  if (manifests !== undefined) return { kind: 'index', mediaType: own, manifests }
  if (config === undefined || layers === undefined) throw cannotUse(what, 'it names no config or no layers')
  return { kind: 'image', mediaType: own, config, layers }
}

/** The descriptors of `index.json` of a layout. Throws KitError `invalid-input`. */
export function parseLayoutIndex(bytes: Uint8Array, what: string): readonly Descriptor[] {
  const { manifests } = parseShape(contentShape, bytes, what)
  if (manifests === undefined) throw cannotUse(what, 'it names no manifests')
  return manifests
}

/** What the config of an image says it runs on; undefined for one that is no image's. */
export function findPlatform(config: Uint8Array): Platform | undefined {
  const outcome = configShape.safeParse(parseJson(config))
  return outcome.success ? outcome.data : undefined
}

const dockerArchiveShape = z
  .array(
    z.object({
      Config: z.string().min(1).max(4096),
      RepoTags: z.array(z.string().max(4096)).max(ENTRIES_MAX).nullish(),
      Layers: z.array(z.string().min(1).max(4096)).max(ENTRIES_MAX),
    }),
  )
  .max(ENTRIES_MAX)

export type DockerImage = z.infer<typeof dockerArchiveShape>[number]

/** `manifest.json` of what `docker save` writes. Throws KitError `invalid-input`. */
export function parseDockerArchive(bytes: Uint8Array, what: string): readonly DockerImage[] {
  return parseShape(dockerArchiveShape, bytes, what)
}

const diffIdsShape = z.object({
  rootfs: z.object({ diff_ids: z.array(z.string().regex(DIGEST)).max(ENTRIES_MAX) }),
})

/** The sha256 (hex) of each layer as it is uncompressed, lowest first. Throws KitError `invalid-input`. */
export function parseDiffIds(config: Uint8Array, what: string): readonly string[] {
  return parseShape(diffIdsShape, config, what).rootfs.diff_ids.map((digest) => sha256Of({ digest }))
}

function parseShape<Shape extends z.ZodType>(shape: Shape, bytes: Uint8Array, what: string): z.output<Shape> {
  const value = parseJson(bytes)
  if (value === undefined) throw cannotUse(what, 'it is not JSON')
  const outcome = shape.safeParse(value)
  if (outcome.success) return outcome.data
  const [first] = outcome.error.issues
  throw cannotUse(what, `${first?.path.join('.') || 'all of it'}: ${first?.message}`)
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(bytes).toString('utf8'))
  } catch {
    return undefined
  }
}

function cannotUse(what: string, why: string): KitError {
  return new KitError('invalid-input', `Cannot use ${what}: ${why}`)
}
