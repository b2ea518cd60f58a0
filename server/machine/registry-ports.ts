// The interfaces of the registry: container images as machines fetch them, and as people fill it.

import type { JobProgress } from '#lib/import-jobs.ts'

/** One name of a container image. */
export interface ContainerImage {
  /** Canonical: `registry.k8s.io/pause:3.9`, or `<repository>@sha256:…`. */
  readonly reference: string
  /** `sha256:<hex>` of its manifest, or of the index of its manifests. */
  readonly digest: string
  /** Of all that it needs; what two images share counts for both. */
  readonly sizeBytes: number
  /** `linux/amd64`; those that are here. */
  readonly platforms: readonly string[]
  readonly importedMs: number
  /** Why it is not served. */
  readonly problem?: string
}

/** A manifest or a blob, whole on the disk. */
export interface RegistryContent {
  readonly file: string
  readonly sizeBytes: number
  /** Hex. */
  readonly sha256: string
  readonly mediaType: string
}

/** What is served under one name: `registry.k8s.io/pause`. */
export interface Repository {
  readonly name: string
  /** In the order of their characters. */
  readonly tags: readonly string[]
  readonly manifests: ReadonlyMap<string, RegistryContent>
  /** By sha256 (hex), as are the manifests, which are blobs too. */
  readonly blobs: ReadonlyMap<string, RegistryContent>
  /** By tag. */
  tagged(tag: string): RegistryContent | undefined
  /** Of an index: the manifest for this server's own kind of machine, for clients that know no indexes. */
  preferred(indexSha256: string): RegistryContent | undefined
}

/** As the front door serves it. Nothing here waits for the disk. */
export interface ContainerImages {
  /** With their hosts, in the order of their characters. */
  repositories(): readonly string[]
  /** `host` as containerd's `ns` says it. Without: `name` may begin with its host, or only one host may have it. */
  repository(name: string, host?: string): Repository | undefined
}

export type RegistryImported = { readonly references: readonly string[] }
export type RegistryImportProgress = JobProgress<RegistryImported>

export interface RegistryVerdict {
  readonly reference: string
  readonly problems: readonly string[]
}

/** As people fill it. */
export interface ContainerRegistry extends ContainerImages {
  /** In the order of their references; damaged ones too. */
  list(): readonly ContainerImage[]
  /**
   * Starts an import of a folder, a tar or the URL of a tar; the same one twice is one. `name` in place of the archive's
   * own. Returns its id.
   */
  startImport(source: string, name?: string): string
  /** Undefined for an id that was never given. */
  importProgress(id: string): RegistryImportProgress | undefined
  /** Resolves with the references when the import is over. Throws KitError. */
  importDone(id: string): Promise<readonly string[]>
  /** What nothing needs any more goes with it. Throws KitError `not-found`, `invalid-input`. */
  remove(reference: string): Promise<void>
  /** Reads every byte of one image, or of all. Throws KitError `not-found`. */
  verify(reference?: string): Promise<readonly RegistryVerdict[]>
}
