// Names of container images: `registry.k8s.io/pause:3.9`, `docker.io/library/nginx@sha256:…`, and short ones as people write them.

import { KitError } from '#lib/errors.ts'

export interface ImageReference {
  /** With its host: `docker.io/library/nginx`. */
  readonly repository: string
  readonly tag?: string
  /** `sha256:<hex>`. */
  readonly digest?: string
}

/** Distribution spec 1.1, "Pulling manifests"; a host may have upper case and a port. */
const PATH = '[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*(?:\\/[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*)*'
const HOST = '[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?'
const TAG = '[A-Za-z0-9_][A-Za-z0-9._-]{0,127}'
const DIGEST = 'sha256:[0-9a-f]{64}'

const IS_HOST = new RegExp(`^${HOST}$`)
const IS_PATH = new RegExp(`^${PATH}$`)
const IS_TAG = new RegExp(`^${TAG}$`)
const IS_DIGEST = new RegExp(`^${DIGEST}$`)
const REFERENCE = new RegExp(`^(?<name>[^@]+?)(?::(?<tag>${TAG}))?(?:@(?<digest>${DIGEST}))?$`)

/** What a host and a path may have together (distribution's own bound). */
const REPOSITORY_MAX = 255

export function isTag(text: string): boolean {
  return IS_TAG.test(text)
}

/** The hex digits of a digest of the one kind there is here; undefined for anything else. */
export function findDigest(text: string): string | undefined {
  return IS_DIGEST.test(text) ? text.slice('sha256:'.length) : undefined
}

/** The canonical name of a repository, with its host; undefined for what can be none. */
function findRepositoryName(text: string): string | undefined {
  if (text.length > REPOSITORY_MAX) return undefined
  const { host, path } = splitHost(text)
  if (!IS_HOST.test(host) || !IS_PATH.test(path)) return undefined
  return `${host}/${path}`
}

/** As the host of a name: what Docker's registry is called besides is `docker.io`. Undefined for what can be none. */
export function findHostName(text: string): string | undefined {
  if (!IS_HOST.test(text)) return undefined
  return DOCKER_NAMES.includes(text) ? DOCKER : text
}

/** Undefined for what can be no reference. `nginx` is `docker.io/library/nginx`, without a tag. */
export function findReference(text: string): ImageReference | undefined {
  const { name = '', tag, digest } = REFERENCE.exec(text)?.groups ?? {}
  const repository = findRepositoryName(name)
  if (repository === undefined) return undefined
  return { repository, ...(tag !== undefined && { tag }), ...(digest !== undefined && { digest }) }
}

/** Throws KitError `invalid-input`. */
export function parseReference(text: string): ImageReference {
  const reference = findReference(text)
  if (reference !== undefined) return reference
  const shown = JSON.stringify(text.slice(0, 100))
  throw new KitError('invalid-input', `Cannot use ${shown} as the name of a container image`, {
    fix: 'name it as in registry.k8s.io/pause:3.9',
  })
}

/** The name it is kept by: by its tag if it has one, else by its digest. */
export function formatReference({ repository, tag, digest }: ImageReference): string {
  if (tag !== undefined) return `${repository}:${tag}`
  return digest === undefined ? repository : `${repository}@${digest}`
}

const DOCKER = 'docker.io'
const DOCKER_NAMES = ['index.docker.io', 'registry-1.docker.io', 'registry.hub.docker.com']

/** The first part is a host when it could be none of a path: it has a dot or a port, or is localhost. */
function splitHost(name: string): { readonly host: string; readonly path: string } {
  const slash = name.indexOf('/')
  const first = name.slice(0, Math.max(slash, 0))
  const isHost = /[.:]/.test(first) || first === 'localhost'
  const host = isHost ? (findHostName(first) ?? '') : DOCKER
  const path = isHost ? name.slice(slash + 1) : name
  return { host, path: host === DOCKER && !path.includes('/') ? `library/${path}` : path }
}
