// Bootstrap tokens: made for one machine, usable when they are handed out, taken back.

import { randomInt } from 'node:crypto'

import type { V1ConfigMap, V1Secret } from '@kubernetes/client-node'

import type { Clock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import { macToPath } from '#lib/mac.ts'
import type { BootstrapToken, TokenWish } from '#machine/cluster-ports.ts'
import { BOOTSTRAP_GROUP } from '#machine/node-request.ts'

import { asKitError, statusOf } from './api-errors.ts'
import type { Connection } from './connection.ts'
import { follow } from './follow.ts'

const NAMESPACE = 'kube-system'
const OURS = { 'app.kubernetes.io/managed-by': 'kateskit' }
const ID = /^[a-z0-9]{6}$/
/** What a token may have: `[a-z0-9]{6}.[a-z0-9]{16}`, 83 bits of secret. */
const LETTERS = 'abcdefghijklmnopqrstuvwxyz0123456789'

export interface SigningTimes {
  readonly clock: Clock
  /** How long the cluster may take to sign: it does so within a second when it is well. */
  readonly timeoutMs: number
}

export async function mintToken(
  connection: Connection,
  wish: TokenWish,
  times: SigningTimes,
): Promise<BootstrapToken> {
  const id = randomText(6)
  const secret = randomText(16)
  await connection.core
    .createNamespacedSecret({ namespace: NAMESPACE, body: secretOf(id, secret, wish) })
    .catch((error: unknown) => {
      throw asKitError('make a bootstrap token', error)
    })
  try {
    await signed(connection, id, times)
  } catch (error) {
    await revokeToken(connection, id).catch(() => {}) // it expires; the first failure is the one worth telling
    throw error
  }
  return { id, token: `${id}.${secret}` }
}

export async function revokeToken({ core }: Connection, id: string): Promise<void> {
  if (!ID.test(id))
    throw new KitError('invalid-input', `Cannot revoke a token: ${JSON.stringify(id)} is no id`)
  try {
    await core.deleteNamespacedSecret({ name: secretName(id), namespace: NAMESPACE })
  } catch (error) {
    if (statusOf(error) !== 404) throw asKitError('revoke a bootstrap token', error)
  }
}

export async function sweepTokens(
  connection: Connection,
  knownIds: readonly string[],
): Promise<readonly string[]> {
  const leftovers = (await listOurs(connection)).filter((id) => !knownIds.includes(id))
  for (const id of leftovers) await revokeToken(connection, id)
  return leftovers
}

/** None where reading Secrets is not ours: there they expire. */
async function listOurs({ core }: Connection): Promise<readonly string[]> {
  const labelSelector = Object.entries(OURS)
    .map(([key, value]) => `${key}=${value}`)
    .join(',')
  const fieldSelector = 'type=bootstrap.kubernetes.io/token'
  try {
    const { items } = await core.listNamespacedSecret({ namespace: NAMESPACE, labelSelector, fieldSelector })
    return items.map(idOf).filter((id) => ID.test(id))
  } catch (error) {
    if (statusOf(error) === 403) return []
    throw asKitError('list bootstrap tokens', error)
  }
}

function idOf({ metadata }: V1Secret): string {
  return metadata?.name?.replace(/^bootstrap-token-/, '') ?? ''
}

/** The format is Kubernetes' own: "Bootstrap Token Secret Format" of its documentation. */
function secretOf(id: string, secret: string, { nodeName, mac, expiresMs }: TokenWish): V1Secret {
  return {
    ...{ apiVersion: 'v1', kind: 'Secret', type: 'bootstrap.kubernetes.io/token' },
    metadata: {
      ...{ name: secretName(id), namespace: NAMESPACE },
      labels: { ...OURS, 'kateskit/mac': macToPath(mac) },
      annotations: { 'kateskit/node': nodeName },
    },
    stringData: {
      'token-id': id,
      'token-secret': secret,
      'usage-bootstrap-authentication': 'true',
      'usage-bootstrap-signing': 'true',
      'auth-extra-groups': BOOTSTRAP_GROUP,
      // RFC 3339, without fractions.
      expiration: new Date(expiresMs).toISOString().replace(/\.\d+Z$/, 'Z'),
      description: `one join of ${nodeName} (${mac})`,
    },
  }
}

function secretName(id: string): string {
  return `bootstrap-token-${id}`
}

/** Resolves when cluster-info is signed with the token: kubeadm believes nothing else. */
function signed(connection: Connection, id: string, { clock, timeoutMs }: SigningTimes): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = (settle: () => void) => {
      cancel()
      connection.closing.removeEventListener('abort', letGo)
      follower.stop()
      settle()
    }
    const cancel = clock.after(timeoutMs, () => end(() => reject(problem ?? notSigned(timeoutMs))))
    let problem: KitError | undefined
    const letGo = () => end(() => reject(LET_GO()))
    connection.closing.addEventListener('abort', letGo)
    const follower = follow<V1ConfigMap>(connection, {
      clock,
      path: '/api/v1/namespaces/kube-public/configmaps',
      query: { fieldSelector: 'metadata.name=cluster-info' },
      onItems(items) {
        const isSigned = [...items.values()].some(({ data }) => data?.[`jws-kubeconfig-${id}`] !== undefined)
        if (isSigned) end(resolve)
      },
      onState(state) {
        problem = state
      },
    })
  })
}

const LET_GO = () =>
  new KitError('unavailable', 'Cannot hand out a bootstrap token: the server lets go of the cluster')

function notSigned(timeoutMs: number): KitError {
  return new KitError(
    'unavailable',
    `Cannot hand out a bootstrap token: the cluster has not signed cluster-info with it within ${timeoutMs / 1000} s`,
    { fix: 'see that kube-controller-manager runs, with the controllers bootstrapsigner and tokencleaner' },
  )
}

function randomText(length: number): string {
  return Array.from({ length }, () => LETTERS.charAt(randomInt(LETTERS.length))).join('')
}
