// Changing Nodes: cordons, marks, and forgetting one that comes back under its name.

import type { V1CertificateSigningRequest, V1Node } from '@kubernetes/client-node'

import type { NodeMarks } from '#machine/cluster-ports.ts'

import { asKitError, statusOf } from './api-errors.ts'
import { readRequest } from './cluster-requests.ts'
import type { Connection } from './connection.ts'
import { planMarks } from './marks.ts'

/** Kubelet and controllers write Nodes as well. */
const TRIES = 5

export async function setCordon(connection: Connection, name: string, isCordoned: boolean): Promise<void> {
  const doing = `${isCordoned ? 'cordon' : 'uncordon'} the node ${name}`
  await patchNode(connection, name, doing, (node) => {
    if ((node.spec?.unschedulable ?? false) === isCordoned) return undefined
    return { spec: { unschedulable: isCordoned ? true : null } }
  })
}

export async function setMarks(connection: Connection, name: string, marks: NodeMarks): Promise<void> {
  await patchNode(connection, name, `set labels and taints of the node ${name}`, (node) =>
    planMarks(node, marks),
  )
}

export async function forgetNode(connection: Connection, name: string): Promise<void> {
  try {
    await gone(connection.core.deleteNode({ name }))
    await gone(connection.coordination.deleteNamespacedLease({ name, namespace: 'kube-node-lease' }))
    const { items } = await connection.certificates.listCertificateSigningRequest()
    for (const request of items.filter((item) => isOf(item, name)))
      await gone(
        connection.certificates.deleteCertificateSigningRequest({ name: request.metadata?.name ?? '' }),
      )
  } catch (error) {
    throw asKitError(`forget the node ${name}`, error)
  }
}

function isOf(request: V1CertificateSigningRequest, name: string): boolean {
  const user = `system:node:${name}`
  return request.spec.username === user || readRequest(request).commonName === user
}

/** Deleted already is deleted. */
async function gone(deletion: Promise<unknown>): Promise<void> {
  await deletion.catch((error: unknown) => {
    if (statusOf(error) !== 404) throw error
  })
}

/** `plan` is asked again when somebody else was faster. A merge patch (RFC 7396). */
async function patchNode(
  { core, mergePatch }: Connection,
  name: string,
  doing: string,
  plan: (node: V1Node) => object | undefined,
): Promise<void> {
  for (let tries = 1; ; tries += 1) {
    try {
      const body = plan(await core.readNode({ name }))
      if (body !== undefined) await core.patchNode({ name, body }, mergePatch)
      return
    } catch (error) {
      if (statusOf(error) !== 409 || tries === TRIES) throw asKitError(doing, error)
    }
  }
}
