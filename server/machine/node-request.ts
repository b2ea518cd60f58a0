// Whether a kubelet gets the certificate that it asks for with a bootstrap token: only the one its grant is for.

import type { Mac } from '#lib/mac.ts'

import type { NodeCertificateRequest, RequestVerdict } from './cluster-ports.ts'

/** What every bootstrap token of ours makes its bearer a member of, and no other token does. */
export const BOOTSTRAP_GROUP = 'system:bootstrappers:kateskit'

export const KUBELET_SIGNER = 'kubernetes.io/kube-apiserver-client-kubelet'

/** A grant whose token may still be used. */
export interface OpenGrant {
  readonly tokenId: string
  /** sha256 of the key that the machine has made for its kubelet. */
  readonly kubeletKey: string
  readonly nodeName: string
  readonly mac: Mac
}

const TOKEN_USER = /^system:bootstrap:(?<id>[a-z0-9]{6})$/
const NODES_GROUP = 'system:nodes'

/** Kubelets with RSA keys ask for key encipherment as well; with EC keys not (KEP-2784, Kubernetes 1.27). */
const USAGES = { needed: ['client auth', 'digital signature'], allowed: ['key encipherment'] }

/** Anything of a bearer of our tokens is approved or denied; everything else is somebody else's matter. */
export function judgeNodeRequest(
  request: NodeCertificateRequest,
  openGrants: readonly OpenGrant[],
): RequestVerdict {
  const tokenId = TOKEN_USER.exec(request.username)?.groups?.['id']
  if (tokenId === undefined || !request.groups.includes(BOOTSTRAP_GROUP)) return { kind: 'leave' }
  const grant = openGrants.find((open) => open.tokenId === tokenId)
  if (grant === undefined) return { kind: 'deny', reason: `its token ${tokenId} belongs to no open grant` }
  const reason = findFault(request, grant)
  return reason === undefined ? { kind: 'approve', mac: grant.mac } : { kind: 'deny', reason, mac: grant.mac }
}

function findFault(request: NodeCertificateRequest, { nodeName, kubeletKey }: OpenGrant): string | undefined {
  const { signerName, commonName, organizations, usages } = request
  const wanted = `system:node:${nodeName}`
  if (signerName !== KUBELET_SIGNER) return `it is for the signer ${quote(signerName)}, not ${KUBELET_SIGNER}`
  if (commonName !== wanted) return `it is for ${quote(commonName)}, its grant for ${wanted}`
  if (organizations.length !== 1 || organizations[0] !== NODES_GROUP)
    return `it is for the groups ${quote(organizations.join(', '))}, not ${NODES_GROUP}`
  if (request.keySha256 !== kubeletKey)
    return 'it is for another key than the machine has made for its kubelet'
  if (request.hasOtherNames) return 'it asks for other names as well'
  const missing = USAGES.needed.filter((usage) => !usages.includes(usage))
  const further = usages.filter((usage) => ![...USAGES.needed, ...USAGES.allowed].includes(usage))
  if (missing.length > 0 || further.length > 0)
    return `it is for the usages ${quote(usages.join(', '))}, not those of a kubelet's client`
  return undefined
}

/** What strangers wrote goes into logs and conditions: short, and on one line. */
function quote(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text)
}
