// What is served under which name: made anew of the images that are whole, and looked up without the disk.

import { findHostName, findReference } from '#machine/image-reference.ts'
import type { RegistryContent, Repository } from '#machine/registry-ports.ts'

import type { ImageGraph } from './image-graph.ts'
import { sha256Of } from './oci-content.ts'
import type { KeptImage } from './registry-folder.ts'

/** By name, in the order of their characters. */
export type Repositories = ReadonlyMap<string, Repository>

/** `fileOf` says where the content with a sha256 lies. */
export function repositoriesOf(
  images: readonly KeptImage[],
  fileOf: (sha256: string) => string,
): Repositories {
  const made = new Map<string, Served>()
  for (const { reference, root, graph } of images) {
    const name = findReference(reference)
    if (graph === undefined || name === undefined) continue
    const served = made.get(name.repository) ?? new Served(name.repository)
    served.add(name.tag, sha256Of(root), { graph, fileOf })
    made.set(name.repository, served)
  }
  return new Map([...made].sort(([left], [right]) => (left < right ? -1 : 1)))
}

const BLOB_TYPE = 'application/octet-stream'

interface Adding {
  readonly graph: ImageGraph
  readonly fileOf: (sha256: string) => string
}

class Served implements Repository {
  readonly name: string
  readonly manifests = new Map<string, RegistryContent>()
  readonly blobs = new Map<string, RegistryContent>()
  readonly #tags = new Map<string, string>()
  readonly #preferred = new Map<string, string>()

  constructor(name: string) {
    this.name = name
  }

  get tags(): readonly string[] {
    return [...this.#tags.keys()].sort()
  }

  tagged(tag: string): RegistryContent | undefined {
    return this.manifests.get(this.#tags.get(tag) ?? '')
  }

  preferred(indexSha256: string): RegistryContent | undefined {
    return this.manifests.get(this.#preferred.get(indexSha256) ?? '')
  }

  add(tag: string | undefined, rootSha256: string, { graph, fileOf }: Adding): void {
    if (tag !== undefined) this.#tags.set(tag, rootSha256)
    for (const [sha256, sizeBytes] of graph.blobs) {
      this.blobs.set(sha256, { file: fileOf(sha256), sizeBytes, sha256, mediaType: BLOB_TYPE })
    }
    for (const [sha256, { mediaType, sizeBytes, preferred }] of graph.manifests) {
      this.manifests.set(sha256, { file: fileOf(sha256), sizeBytes, sha256, mediaType })
      if (preferred !== undefined) this.#preferred.set(sha256, preferred)
    }
  }
}

/** As `ContainerImages.repository` says. */
export function findServed(
  repositories: Repositories,
  name: string,
  host: string | undefined,
): Repository | undefined {
  const short = name.includes('/') ? name : `library/${name}`
  if (host !== undefined) {
    const canonical = findHostName(host)
    return repositories.get(`${canonical}/${canonical === 'docker.io' ? short : name}`)
  }
  const [first = '', ...rest] = name.split('/')
  const withHost = repositories.get([findHostName(first) ?? first, ...rest].join('/'))
  if (withHost !== undefined) return withHost
  const found = [...repositories.values()].filter((repository) => {
    const [itsHost, ...path] = repository.name.split('/')
    return path.join('/') === (itsHost === 'docker.io' ? short : name)
  })
  return found.length === 1 ? found[0] : undefined
}
