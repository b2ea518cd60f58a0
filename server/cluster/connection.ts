// One connection to the API: the clients of @kubernetes/client-node over the sockets of one access, until it is closed.

import type {
  CertificatesV1Api,
  ConfigurationOptions,
  CoordinationV1Api,
  CoreV1Api,
  KubernetesObjectApi,
  RbacAuthorizationV1Api,
  VersionApi,
} from '@kubernetes/client-node'

import { KitError } from '#lib/errors.ts'
import type { ClusterAccess } from '#machine/cluster-ports.ts'

import { type ApiTarget, readKubeconfig } from './kubeconfig.ts'

export interface Connection {
  readonly target: ApiTarget
  readonly isAdopted: boolean
  /** When another access is needed; undefined where that is not known. */
  readonly untilMs: number | undefined
  readonly core: CoreV1Api
  readonly certificates: CertificatesV1Api
  readonly coordination: CoordinationV1Api
  readonly rbac: RbacAuthorizationV1Api
  readonly version: VersionApi
  readonly objects: KubernetesObjectApi
  /** Second argument of a client's `patch…`, which else takes its body for a JSON patch (RFC 6902). */
  readonly mergePatch: ConfigurationOptions
  /** The JSON at `path`. Throws as the clients do. */
  get(path: string, query: Query): Promise<unknown>
  watch(path: string, query: Query, hear: WatchHearer): Watching
  /** Aborted by `close`. */
  readonly closing: AbortSignal
  /** Ends all requests, watches and sockets. */
  close(): void
}

export type Query = Readonly<Record<string, string>>

export interface WatchHearer {
  event(type: string, object: unknown): void
  /** Called once, unless it is stopped before. */
  ended(how: WatchEnd): void
}

export type WatchEnd =
  /** By the server, as it does from time to time, or by the end of the connection. */
  | { readonly kind: 'closed' }
  /** Nothing came for half a minute: nothing happened, or nobody is there any more. */
  | { readonly kind: 'quiet' }
  | { readonly kind: 'failed'; readonly error: unknown }

export interface Watching {
  /** Nothing is heard from it afterwards. */
  stop(): void
}

const REQUEST_TIMEOUT_MS = 20_000

type Library = typeof import('@kubernetes/client-node')

/** Loads the client library: 0.5 s and 90 MB, which a server without a cluster does not pay. */
function loadLibrary(): Promise<Library> {
  return import('@kubernetes/client-node')
}

/** Opens no socket yet. Throws KitError `invalid-input` for a kubeconfig that cannot be used. */
export async function connect(access: ClusterAccess): Promise<Connection> {
  const library = await loadLibrary()
  const target = targetOf(access, library)
  const { config, end } = await fixedConfig(target, library)
  const configuration = library.createConfiguration({
    baseServer: new library.ServerConfiguration(target.server, {}),
    authMethods: { default: config },
    promiseMiddleware: [
      {
        pre: async (context) => {
          context.setSignal(AbortSignal.timeout(REQUEST_TIMEOUT_MS))
          return context
        },
        post: async (context) => context,
      },
    ],
  })
  const watches = new Set<Watching>()
  const closing = new AbortController()
  return {
    target,
    isAdopted: access.kind === 'adopted',
    untilMs: access.kind === 'own' ? access.client.untilMs : undefined,
    core: new library.CoreV1Api(configuration),
    certificates: new library.CertificatesV1Api(configuration),
    coordination: new library.CoordinationV1Api(configuration),
    rbac: new library.RbacAuthorizationV1Api(configuration),
    version: new library.VersionApi(configuration),
    objects: new library.KubernetesObjectApi(configuration),
    mergePatch: library.setHeaderOptions('Content-Type', library.PatchStrategy.MergePatch),
    get: (path, query) => getJson(library, { config, configuration, url: `${target.server}${path}` }, query),
    watch(path, query, hear) {
      const watching = startWatch(new library.Watch(config), { path, query }, hear)
      watches.add(watching)
      const stop = () => {
        watches.delete(watching)
        watching.stop()
      }
      return { stop }
    },
    closing: closing.signal,
    close() {
      closing.abort()
      for (const watching of watches) watching.stop()
      watches.clear()
      end()
    },
  }
}

function targetOf(access: ClusterAccess, library: Library): ApiTarget {
  if (access.kind === 'adopted') return readKubeconfig(access.kubeconfig, (text) => library.loadYaml(text))
  const { endpoint, authority, client } = access
  return { server: `https://${endpoint}`, authority, certificate: client.certificate, key: client.key }
}

/**
 * client-node 2.0.1 makes an undici Agent, with TLS sessions of its own, for every single request and never closes one:
 * here the first is kept for all, and closed.
 */
async function fixedConfig(target: ApiTarget, library: Library) {
  const base64 = (pem: string) => Buffer.from(pem).toString('base64')
  const { server, authority, certificate, key, token, tlsServerName } = target
  const config = new library.KubeConfig()
  config.loadFromClusterAndUser(
    {
      ...{ name: 'cluster', server, caData: base64(authority), skipTLSVerify: false },
      ...(tlsServerName === undefined ? {} : { tlsServerName }),
    },
    {
      name: 'user',
      ...(certificate === undefined ? {} : { certData: base64(certificate) }),
      ...(key === undefined ? {} : { keyData: base64(key) }),
      ...(token === undefined ? {} : { token }),
    },
  )
  const first = new library.RequestContext(server, library.HttpMethod.GET)
  await config.applySecurityAuthentication(first)
  const dispatcher = first.getDispatcher()
  if (dispatcher === undefined) throw new KitError('internal', 'Cannot connect to the cluster: no dispatcher')
  config.applySecurityAuthentication = async (context) => {
    for (const [name, value] of Object.entries(first.getHeaders())) context.setHeaderParam(name, value)
    context.setDispatcher(dispatcher)
  }
  const end = () => void dispatcher.destroy().catch(() => {}) // it is gone either way
  return { config, end }
}

interface GetParts {
  readonly config: InstanceType<Library['KubeConfig']>
  readonly configuration: ReturnType<Library['createConfiguration']>
  readonly url: string
}

async function getJson(
  library: Library,
  { config, configuration, url }: GetParts,
  query: Query,
): Promise<unknown> {
  const context = new library.RequestContext(url, library.HttpMethod.GET)
  for (const [name, value] of Object.entries(query)) context.setQueryParam(name, value)
  context.setHeaderParam('Accept', 'application/json')
  context.setSignal(AbortSignal.timeout(REQUEST_TIMEOUT_MS))
  await config.applySecurityAuthentication(context)
  const response = await configuration.httpApi.send(context).toPromise()
  const text = await response.body.text()
  if (response.httpStatusCode === 200) return JSON.parse(text)
  throw new library.ApiException(response.httpStatusCode, '', text, response.headers)
}

function startWatch(
  watch: InstanceType<Library['Watch']>,
  { path, query }: { readonly path: string; readonly query: Query },
  hear: WatchHearer,
): Watching {
  let isOver = false
  const ended = (error: unknown) => {
    if (isOver) return
    isOver = true
    hear.ended(endOf(error))
  }
  const event = (type: string, object: unknown) => {
    if (!isOver) hear.event(type, object)
  }
  const opened = watch.watch(path, query, event, ended).catch((error: unknown) => ended(error))
  return {
    stop() {
      isOver = true
      void opened.then((controller) => controller?.abort())
    },
  }
}

function endOf(error: unknown): WatchEnd {
  if (error === null || error === undefined) return { kind: 'closed' }
  return error instanceof Error && error.name === 'TimeoutError'
    ? { kind: 'quiet' }
    : { kind: 'failed', error }
}
