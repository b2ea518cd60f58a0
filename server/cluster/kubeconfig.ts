// Reading a kubeconfig that a person hands over: it may name an API and who we are there, and nothing that runs or lies on this host.

import { getCACertificates } from 'node:tls'

import { describeError, KitError } from '#lib/errors.ts'

/** How an API is reached; certificates and keys are PEM. */
export interface ApiTarget {
  /** `https://host:port`. */
  readonly server: string
  readonly authority: string
  /** The name its certificate is for, when that is another than the URL's. */
  readonly tlsServerName?: string
  readonly certificate?: string
  readonly key?: string
  readonly token?: string
}

const SIZE_MAX = 128 * 1024

/** Of a user: why each of these is refused. */
const USER_REFUSED: ReadonlyMap<string, string> = new Map([
  ['exec', 'it runs a program (exec)'],
  ['auth-provider', 'it needs a login program (auth-provider)'],
  ['client-certificate', 'it names a file (client-certificate)'],
  ['client-key', 'it names a file (client-key)'],
  ['tokenFile', 'it names a file (tokenFile)'],
  ['token-file', 'it names a file (token-file)'],
  ['username', 'it has a user name and a password'],
  ['password', 'it has a user name and a password'],
  ['as', 'it acts as somebody else (as)'],
  ['as-groups', 'it acts as somebody else (as-groups)'],
  ['as-uid', 'it acts as somebody else (as-uid)'],
  ['as-user-extra', 'it acts as somebody else (as-user-extra)'],
])
const USER_TAKEN = ['client-certificate-data', 'client-key-data', 'token', 'extensions']

const CLUSTER_REFUSED: ReadonlyMap<string, string> = new Map([
  ['certificate-authority', 'it names a file (certificate-authority)'],
  ['proxy-url', 'it goes through a proxy (proxy-url)'],
])
const CLUSTER_TAKEN = [
  ...['server', 'certificate-authority-data', 'tls-server-name', 'insecure-skip-tls-verify'],
  ...['disable-compression', 'extensions'],
]

const FLATTEN =
  'make one with `kubectl config view --raw --flatten --minify`, for an account with a token or a certificate'

type Fields = Readonly<Record<string, unknown>>

/** `parseYaml` runs nothing and reads no file. Throws KitError `invalid-input`. */
export function readKubeconfig(text: string, parseYaml: (text: string) => unknown): ApiTarget {
  if (text.length > SIZE_MAX) throw refused(`it is larger than ${SIZE_MAX} characters`)
  const root = fieldsOf(parse(text, parseYaml), 'it is no kubeconfig')
  const name = root['current-context']
  const context = find(root['contexts'], name, 'context')
  const cluster = find(root['clusters'], context['cluster'], 'cluster')
  const user = find(root['users'], context['user'], 'user')
  check(cluster, CLUSTER_REFUSED, CLUSTER_TAKEN, 'cluster')
  check(user, USER_REFUSED, USER_TAKEN, 'user')
  return { ...readCluster(cluster), ...readUser(user) }
}

function readCluster(cluster: Fields): ApiTarget {
  const server = textOf(cluster, 'server') ?? ''
  const url = URL.canParse(server) ? new URL(server) : undefined
  if (url?.protocol !== 'https:' || url.username !== '' || url.search !== '' || url.hash !== '')
    throw refused('its server is no plain https URL')
  if (![undefined, null, false].includes(cluster['insecure-skip-tls-verify'] as undefined))
    throw refused('it does not check the certificate of the cluster (insecure-skip-tls-verify)')
  const authority = pemOf(cluster, 'certificate-authority-data')
  const tlsServerName = textOf(cluster, 'tls-server-name')
  return {
    server: server.replace(/\/+$/, ''),
    authority: authority ?? getCACertificates('default').join('\n'),
    ...(tlsServerName === undefined ? {} : { tlsServerName }),
  }
}

function readUser(user: Fields): Pick<ApiTarget, 'certificate' | 'key' | 'token'> {
  const certificate = pemOf(user, 'client-certificate-data')
  const key = pemOf(user, 'client-key-data')
  const token = textOf(user, 'token')
  if (certificate !== undefined && key !== undefined) return { certificate, key }
  if (token === undefined) throw refused('its user has neither a token nor a certificate with its key')
  if (!/^[\x21-\x7e]{1,16384}$/.test(token)) throw refused('its token cannot be one')
  return { token }
}

function parse(text: string, parseYaml: (text: string) => unknown): unknown {
  try {
    return parseYaml(text)
  } catch (cause) {
    throw refused(`it is not YAML (${describeError(cause).split('\n')[0]?.slice(0, 80)})`, cause)
  }
}

function fieldsOf(value: unknown, otherwise: string): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw refused(otherwise)
  return value as Fields
}

/** The entry `name` of a list of `{name, <kind>: {…}}`. */
function find(list: unknown, name: unknown, kind: string): Fields {
  const entries: readonly unknown[] = Array.isArray(list) ? list : []
  const named = entries.map((entry) => fieldsOf(entry, 'it is no kubeconfig'))
  const entry = named.find((candidate) => typeof name === 'string' && candidate['name'] === name)
  if (entry === undefined) throw refused(`the ${kind} of its current context is missing`)
  return fieldsOf(entry[kind], `its ${kind} is empty`)
}

function check(
  fields: Fields,
  refusals: ReadonlyMap<string, string>,
  taken: readonly string[],
  kind: string,
): void {
  for (const [key, value] of Object.entries(fields)) {
    if (taken.includes(key) || value === null || value === undefined) continue
    throw refused(refusals.get(key) ?? `its ${kind} has a field that is not known here: ${key.slice(0, 40)}`)
  }
}

function textOf(fields: Fields, key: string): string | undefined {
  const value = fields[key]
  if (value === undefined || value === null || value === '') return undefined
  if (typeof value !== 'string') throw refused(`${key} is no text`)
  return value
}

function pemOf(fields: Fields, key: string): string | undefined {
  const base64 = textOf(fields, key)
  if (base64 === undefined) return undefined
  const pem = Buffer.from(base64, 'base64').toString()
  if (!pem.includes('-----BEGIN ')) throw refused(`${key} is not PEM in base64`)
  return pem
}

function refused(reason: string, cause?: unknown): KitError {
  return new KitError('invalid-input', `Cannot use the kubeconfig: ${reason}`, { fix: FLATTEN, cause })
}
