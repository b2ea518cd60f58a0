// etcd's own API, by its JSON gateway (gRPC's messages as JSON, since etcd 3.4 under /v3): members, their health, their removal.

import { request } from 'node:https'

import { describeError, KitError } from '#lib/errors.ts'
import type { ClientCertificate, EtcdMember } from '#machine/cluster-ports.ts'
import { findRemovalFault } from '#machine/etcd-quorum.ts'

export interface EtcdAccess {
  /** `https://10.0.0.1:2379`, of control planes: any that answers will do. */
  readonly endpoints: readonly string[]
  readonly client: ClientCertificate & { readonly authority: string }
}

const TIMEOUT_MS = 4_000
const ANSWER_MAX = 1024 * 1024

export async function listMembers(access: EtcdAccess): Promise<readonly EtcdMember[]> {
  const { value } = await askAny(access, '/v3/cluster/member/list')
  const members = readMembers(value)
  return Promise.all(
    members.map(async (member) => ({ ...member.facts, ...(await healthOf(access, member)) })),
  )
}

export async function removeMember(access: EtcdAccess, id: string): Promise<void> {
  const members = await listMembers(access)
  const gone = members.find((member) => member.id === id)
  if (gone === undefined) return
  const fault = findRemovalFault(members, id)
  const name = gone.name === '' ? id : gone.name
  if (fault !== undefined) throw new KitError('conflict', `Cannot take ${name} out of etcd: ${fault}`)
  await askAny(access, '/v3/cluster/member/remove', { ID: BigInt(`0x${id}`).toString() })
}

interface RawMember {
  readonly facts: Omit<EtcdMember, 'isHealthy' | 'isLeader'>
  readonly clientUrls: readonly string[]
}

/** Exported for its tests. Numbers of 64 bits are text in JSON; what is zero, empty or false is left out. */
export function readMembers(value: unknown): readonly RawMember[] {
  const { members } = value as { members?: unknown }
  if (!Array.isArray(members)) throw new KitError('unavailable', 'Cannot read what etcd answered: no members')
  return members.map((member: Readonly<Record<string, unknown>>) => ({
    facts: {
      id: toHex(member['ID']),
      name: typeof member['name'] === 'string' ? member['name'] : '',
      peerUrls: textsOf(member['peerURLs']),
      ...(member['isLearner'] === true ? { isLearner: true } : {}),
    },
    clientUrls: textsOf(member['clientURLs']).filter((url) => url.startsWith('https://')),
  }))
}

function textsOf(value: unknown): readonly string[] {
  return Array.isArray(value) ? value.filter((each) => typeof each === 'string') : []
}

/** A member is well when it answers itself and knows a leader. */
async function healthOf(
  { client }: EtcdAccess,
  { facts, clientUrls }: RawMember,
): Promise<Pick<EtcdMember, 'isHealthy' | 'isLeader'>> {
  const none = { isHealthy: false, isLeader: false }
  if (clientUrls.length === 0) return none
  try {
    const { value } = await askAny({ endpoints: clientUrls, client }, '/v3/maintenance/status')
    const { leader, errors } = value as { leader?: unknown; errors?: unknown }
    const hasLeader = typeof leader === 'string' && leader !== '0'
    const isHealthy = hasLeader && textsOf(errors).length === 0
    return { isHealthy, isLeader: hasLeader && toHex(leader) === facts.id }
  } catch {
    return none
  }
}

function toHex(id: unknown): string {
  if (typeof id !== 'string' || !/^\d{1,20}$/.test(id))
    throw new KitError('unavailable', 'Cannot read what etcd answered: a member without an id')
  return BigInt(id).toString(16)
}

/** The first endpoint that answers. Throws KitError `unavailable` with what the last one said. */
async function askAny(
  { endpoints, client }: EtcdAccess,
  path: string,
  body: object = {},
): Promise<{ value: unknown }> {
  let last: unknown = 'no control plane has an address'
  for (const endpoint of endpoints) {
    try {
      return { value: await post(`${endpoint}${path}`, body, client) }
    } catch (error) {
      if (error instanceof KitError) throw error
      last = error
    }
  }
  throw new KitError('unavailable', `Cannot ask etcd: ${describeError(last)}`, {
    cause: last,
    fix: 'see that the control planes run, and that this server reaches their port 2379',
  })
}

function post(url: string, body: object, client: EtcdAccess['client']): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const { authority: ca, certificate: cert, key } = client
    const options = { method: 'POST', agent: false, ca, cert, key, signal: AbortSignal.timeout(TIMEOUT_MS) }
    const asked = request(
      url,
      { ...options, headers: { 'content-type': 'application/json' } },
      (response) => {
        let text = ''
        response.setEncoding('utf8')
        response.on('data', (chunk: string) => {
          text += chunk
          if (text.length > ANSWER_MAX) response.destroy(new Error('etcd answered too much'))
        })
        response.once('error', reject)
        response.once('end', () => {
          try {
            resolve(readAnswer(response.statusCode ?? 0, text))
          } catch (error) {
            reject(error)
          }
        })
      },
    )
    asked.once('error', reject)
    asked.end(JSON.stringify(body))
  })
}

function readAnswer(status: number, text: string): unknown {
  const value = parseJson(text)
  if (status === 200 && value !== undefined) return value
  const { message, error } = (value ?? {}) as { message?: unknown; error?: unknown }
  throw new Error(`etcd answered ${status}: ${String(message ?? error ?? 'no JSON').slice(0, 200)}`)
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
