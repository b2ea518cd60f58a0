// How the images of an archive are called here: by what the archive says, or by what the person says.

import { KitError } from '#lib/errors.ts'
import { findReference, formatReference, type ImageReference, isTag } from '#machine/image-reference.ts'

import type { Descriptor } from './oci-content.ts'

/** An image of an archive, and what the archive calls it. */
export interface ArchivedImage {
  readonly descriptor: Descriptor
  readonly references: readonly ImageReference[]
  /** All that some archives say: a tag, without whose it is. */
  readonly tag?: string
}

export interface NamedImage {
  readonly reference: ImageReference
  readonly descriptor: Descriptor
}

/** As containerd writes it; it is the whole name where there is one. */
const CONTAINERD_NAME = 'io.containerd.image.name'
/** Image spec, "Pre-Defined Annotation Keys": the whole name with skopeo, the tag with others. */
const REF_NAME = 'org.opencontainers.image.ref.name'

/** Of an entry of a layout's index.json. */
export function readNames(descriptor: Descriptor): Pick<ArchivedImage, 'references' | 'tag'> {
  const { [CONTAINERD_NAME]: full = '', [REF_NAME]: short = '' } = descriptor.annotations ?? {}
  const reference = findReference(full) ?? (isTag(short) ? undefined : findReference(short))
  return {
    references: reference === undefined ? [] : [reference],
    ...(isTag(short) && { tag: short }),
  }
}

/** Every name once. Without `asked`, images that nobody has named are left out. Throws KitError `invalid-input`. */
export function nameImages(
  images: readonly ArchivedImage[],
  asked: ImageReference | undefined,
  shown: string,
): readonly NamedImage[] {
  const named = asked === undefined ? byArchive(images, shown) : byPerson(images, asked, shown)
  const byName = new Map<string, NamedImage>()
  for (const image of named) {
    const { reference, descriptor } = image
    const name = formatReference(reference)
    const other = byName.get(name)?.descriptor.digest ?? descriptor.digest
    if (other !== descriptor.digest) throw cannot(shown, `it has two images that are called ${name}`)
    if (reference.digest !== undefined && reference.digest !== descriptor.digest)
      throw cannot(shown, `what it calls ${name} is ${descriptor.digest}, not ${reference.digest}`)
    byName.set(name, image)
  }
  return [...byName.values()]
}

function byArchive(images: readonly ArchivedImage[], shown: string): readonly NamedImage[] {
  const named = images.flatMap(({ references, descriptor }) =>
    references.map((reference) => ({ reference: withTag(reference), descriptor })),
  )
  if (named.length > 0) return named
  const why = images.length === 0 ? 'it has no images' : 'its images have no names'
  throw cannot(
    shown,
    why,
    images.length === 0 ? undefined : 'say what it is: --name registry.k8s.io/pause:3.9',
  )
}

function byPerson(
  images: readonly ArchivedImage[],
  asked: ImageReference,
  shown: string,
): readonly NamedImage[] {
  if (images.length === 0) throw cannot(shown, 'it has no images')
  const isWhole = asked.tag !== undefined || asked.digest !== undefined
  if (isWhole && new Set(images.map(({ descriptor }) => descriptor.digest)).size > 1)
    throw cannot(shown, 'it has several images, and one name for them', 'leave out --name, or its tag')
  return images.map(({ descriptor, references, tag }) => {
    const own = tag ?? references.find((reference) => reference.tag !== undefined)?.tag
    return {
      reference: isWhole || own === undefined ? withTag(asked) : { ...asked, tag: own },
      descriptor,
    }
  })
}

/** `nginx` is `nginx:latest`, as everywhere. */
export function withTag(reference: ImageReference): ImageReference {
  const isWhole = reference.tag !== undefined || reference.digest !== undefined
  return isWhole ? reference : { ...reference, tag: 'latest' }
}

function cannot(shown: string, why: string, fix?: string): KitError {
  return new KitError('invalid-input', `Cannot import ${shown}: ${why}`, fix === undefined ? {} : { fix })
}
