// What a route of the API is, and what it is made of.

import type { IncomingMessage } from 'node:http'

import type { Clock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import type { Mac } from '#lib/mac.ts'
import { didYouMean } from '#lib/nearest.ts'
import type { AuditLog, TokenRole, TokenStore } from '#machine/access-ports.ts'
import type { Clusters } from '#machine/cluster-ports.ts'
import type { Identities } from '#machine/identity-ports.ts'
import type { LeaseStore } from '#machine/lease-ports.ts'
import type {
  Bundles,
  EventLog,
  ExplainedValue,
  ImageStore,
  MachineViews,
  Powerwashes,
  ProfileProblem,
  Profiles,
} from '#machine/ports.ts'
import type { ContainerRegistry } from '#machine/registry-ports.ts'
import type { ImageView, Releases } from '#machine/release-ports.ts'
import type { Secrets, SecretsKey } from '#machine/secret-ports.ts'
import type { CaView } from '#machine/tls-ports.ts'

import type { Imports } from './imports.ts'

export interface ApiParts {
  readonly views: MachineViews
  readonly profiles: Profiles
  /** Everything wrong in the profile tree and its overlays right now. */
  readonly problems: () => readonly ProfileProblem[]
  readonly bundles: Bundles
  readonly events: EventLog
  readonly leases: LeaseStore
  readonly tokens: TokenStore
  readonly audit: AuditLog
  readonly serverConfig: () => readonly ExplainedValue[]
  readonly releases: Releases
  readonly powerwashes: Powerwashes
  readonly identities: Identities
  readonly clusters: Clusters
  readonly imageStore: ImageStore
  readonly registry?: ContainerRegistry
  readonly secretFiles: Pick<Secrets, 'explain'>
  readonly secretsKey: Pick<SecretsKey, 'recipient'>
  readonly ca: CaView
}

export interface RouteParts extends ApiParts {
  readonly imports: Imports
  readonly clock: Clock
}

/** Values are named one by one, so that no secret gets into the audit log by accident. */
export type AuditDetail = Readonly<Record<string, string | number | boolean | undefined>>

export interface ApiCall {
  readonly request: IncomingMessage
  /** Who asks: `token <name> (<id>)`, `control socket`. */
  readonly actor: string
  readonly query: URLSearchParams
  /** The `:mac` of the path. Throws KitError `invalid-input`. */
  mac(): Mac
  /** Another hole of the path, as the client wrote it. */
  name(hole: 'version' | 'channel' | 'id' | 'holder' | 'ek'): string
  /**
   * What the audit log is to say of this call beside its path; said before the work, for it may fail. Never a secret.
   * `target` in place of what the holes of the path hold.
   */
  note(detail: AuditDetail, target?: string): void
}

export interface ApiRoute {
  readonly method: 'get' | 'put' | 'post' | 'delete'
  readonly path: string
  /** The least role that may; `viewer` for GET and `operator` for all else when absent. */
  readonly needs?: TokenRole
  /** Of the answer when all went well; 200 when absent. */
  readonly status?: number
  /** Resolves with the body of the answer. */
  readonly answer: (call: ApiCall, parts: RouteParts) => unknown
}

export const API_BODY_MAX_BYTES = 64 * 1024

/** Throws KitError `not-found`, with the nearest version there is. */
export async function findImage({ releases }: ApiParts, version: string): Promise<ImageView> {
  const images = await releases.images()
  const image = images.find((each) => each.version === version)
  if (image !== undefined) return image
  const nearest = didYouMean(
    version,
    images.map((each) => each.version),
  )
  throw new KitError('not-found', `Cannot find image ${JSON.stringify(version.slice(0, 64))}${nearest}`, {
    fix: 'kateskit image list shows those there are',
  })
}

/** A URL may carry a password, or a token in its query. */
export function withoutLogin(source: string): string {
  const url = URL.parse(source)
  return url?.host ? `${url.protocol}//${url.host}${url.pathname}` : source
}
