// `/v2/`: the read side of the OCI distribution spec 1.1, as container runtimes speak it. Everything is looked up, nothing joined.

import type { ServerResponse } from 'node:http'

import { describeError, ERROR_STATUS } from '#lib/errors.ts'
import type { Log } from '#lib/log.ts'
import { findDigest, isTag } from '#machine/image-reference.ts'
import type { ContainerImages, RegistryContent, Repository } from '#machine/registry-ports.ts'

import type { ChunkPool } from './chunk-pool.ts'
import { type Exchange, sendJson, toKitError } from './exchange.ts'
import { sendFile } from './file-sender.ts'

export interface RegistryDoor {
  readonly registry?: ContainerImages
  readonly pool: ChunkPool
  readonly log: Log
}

/** Distribution spec 1.1, "Error Codes", and the status of each. */
const STATUS = {
  NAME_INVALID: 400,
  DIGEST_INVALID: 400,
  MANIFEST_INVALID: 400,
  NAME_UNKNOWN: 404,
  MANIFEST_UNKNOWN: 404,
  BLOB_UNKNOWN: 404,
  UNSUPPORTED: 405,
} as const

interface Refusal {
  readonly code: keyof typeof STATUS
  readonly message: string
}

/** Nothing, when it was answered. */
type Answered = Refusal | undefined

const PAGE_MAX = 1000

/** Never rejects: a runtime understands only this spec's own errors. */
export async function serveRegistry(exchange: Exchange, rest: string, door: RegistryDoor): Promise<void> {
  const { response } = exchange
  try {
    response.setHeader('Docker-Distribution-API-Version', 'registry/2.0')
    const refusal = await answer(exchange, rest, door)
    if (refusal !== undefined) refuse(response, STATUS[refusal.code], refusal)
  } catch (error) {
    const { code, message } = toKitError(error)
    const status = ERROR_STATUS[code]
    if (status >= 500) door.log.error({ err: error, url: response.req.url }, describeError(error))
    if (response.headersSent) response.destroy()
    else refuse(response, status, { code: 'UNKNOWN', message })
  }
}

function refuse(response: ServerResponse, status: number, error: { code: string; message: string }): void {
  for (const name of ['ETag', 'Docker-Content-Digest', 'Accept-Ranges']) response.removeHeader(name)
  sendJson(response, status, { errors: [error] })
}

async function answer(exchange: Exchange, rest: string, door: RegistryDoor): Promise<Answered> {
  const { request, response, url } = exchange
  const { registry } = door
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    response.setHeader('Allow', 'GET, HEAD')
    response.setHeader('Connection', 'close') // whoever pushes sends on
    return { code: 'UNSUPPORTED', message: 'this registry is read-only: kateskit registry import fills it' }
  }
  if (registry === undefined) return { code: 'NAME_UNKNOWN', message: 'this server has no registry' }
  if (rest === '') return void sendJson(response, 200, {})
  if (rest === '_catalog')
    return sendPage(exchange, registry.repositories(), (repositories) => ({ repositories }))
  const path = findDecoded(rest)
  if (path === undefined) return { code: 'NAME_INVALID', message: `${quote(rest)} cannot be decoded` }
  const { name = '', kind, what = '' } = PATH.exec(path)?.groups ?? {}
  // Also what 1.1 leaves to the registry: a client that gets 404 for referrers asks for a tag of that digest.
  if (kind === undefined) return { code: 'NAME_UNKNOWN', message: 'there is no such path here' }
  const repository = registry.repository(name, url.searchParams.get('ns') ?? undefined)
  if (repository === undefined)
    return { code: 'NAME_UNKNOWN', message: `${quote(name)} is not here, or under several hosts` }
  switch (kind) {
    case 'tags':
      return sendPage(exchange, repository.tags, (tags) => ({ name, tags }))
    case 'manifests':
      return sendManifest(exchange, { repository, what, door })
    default:
      return sendBlob(exchange, { repository, what, door })
  }
}

/** A repository's name may have a part that is called `blobs`: the last one counts. */
const PATH = /^(?<name>.+)\/(?:(?<kind>tags)\/list|(?<kind>manifests|blobs)\/(?<what>[^/]+))$/

/** Some clients write `:` as `%3A`. */
function findDecoded(rest: string): string | undefined {
  try {
    return decodeURIComponent(rest)
  } catch {
    return undefined
  }
}

interface Asked {
  readonly repository: Repository
  /** A tag, or a digest. */
  readonly what: string
  readonly door: RegistryDoor
}

async function sendManifest(exchange: Exchange, { repository, what, door }: Asked): Promise<Answered> {
  const digest = findDigest(what)
  if (digest === undefined && !isTag(what))
    return { code: 'MANIFEST_INVALID', message: `${quote(what)} is neither a tag nor a sha256 digest` }
  const found = digest === undefined ? repository.tagged(what) : repository.manifests.get(digest)
  if (found === undefined)
    return { code: 'MANIFEST_UNKNOWN', message: `${repository.name} has no ${quote(what)}` }
  const accepted = exchange.request.headers.accept
  // By its digest a client gets what has that digest; by a tag it may get what it understands.
  const other = digest === undefined ? repository.preferred(found.sha256) : undefined
  const content = [found, other].find((each) => each !== undefined && accepts(accepted, each.mediaType))
  if (content === undefined) {
    const message = `${repository.name} has ${quote(what)} as ${found.mediaType}, which the request does not accept`
    return { code: 'MANIFEST_UNKNOWN', message }
  }
  exchange.response.setHeader('Vary', 'Accept')
  await send(exchange, content, door)
  return undefined
}

async function sendBlob(exchange: Exchange, { repository, what, door }: Asked): Promise<Answered> {
  const digest = findDigest(what)
  if (digest === undefined) return { code: 'DIGEST_INVALID', message: `${quote(what)} is no sha256 digest` }
  const found = repository.blobs.get(digest)
  if (found === undefined) return { code: 'BLOB_UNKNOWN', message: `${repository.name} has no blob ${what}` }
  await send(exchange, found, door)
  return undefined
}

async function send(exchange: Exchange, content: RegistryContent, { pool }: RegistryDoor): Promise<void> {
  exchange.response.setHeader('Docker-Content-Digest', `sha256:${content.sha256}`)
  await sendFile(exchange, { ...content, contentType: content.mediaType }, pool)
}

/** RFC 9110 §12.5.1, but for weights: an image is not made in several ways to choose from. */
function accepts(header: string | undefined, mediaType: string): boolean {
  if (header === undefined || header.trim() === '') return true
  const ranges = header.split(',').map((range) => range.split(';')[0]?.trim().toLowerCase())
  const [type] = mediaType.split('/')
  return ranges.some((range) => range === mediaType || range === '*/*' || range === `${type}/*`)
}

/** "Listing Tags": `n` at most, those after `last`, and a link to the next ones. */
function sendPage(
  { response, url }: Exchange,
  all: readonly string[],
  bodyOf: (page: readonly string[]) => unknown,
): undefined {
  const { searchParams } = url
  const asked = searchParams.get('n') ?? ''
  const most = /^\d{1,9}$/.test(asked) ? Math.min(Number(asked), PAGE_MAX) : PAGE_MAX
  const after = searchParams.get('last') ?? ''
  const rest = all.filter((name) => name > after)
  const page = rest.slice(0, most)
  const last = page.at(-1)
  if (last !== undefined && rest.length > page.length) {
    const next = new URLSearchParams(searchParams)
    next.set('n', `${most}`)
    next.set('last', last)
    response.setHeader('Link', `<${url.pathname}?${next}>; rel="next"`)
  }
  sendJson(response, 200, bodyOf(page))
  return undefined
}

function quote(text: string): string {
  return JSON.stringify(text.slice(0, 128))
}
