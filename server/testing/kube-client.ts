// Asking a real API server as anybody: with a token, with a certificate, or as nobody; and what kubelets send it.

import { createHash, createPublicKey } from 'node:crypto'
import { request } from 'node:https'

import { commandOutput } from '#lib/process.ts'

import type { KubeControlPlane } from './kube-control-plane.ts'

export interface Caller {
  readonly token?: string
  readonly certificate?: { readonly cert: string; readonly key: string }
}

export interface KubeAnswer {
  readonly status: number
  readonly body: Readonly<Record<string, unknown>>
}

export interface KubeQuestion {
  readonly method?: string
  readonly path: string
  readonly body?: unknown
}

export async function askKube(
  { endpoint, pki }: KubeControlPlane,
  { token, certificate }: Caller,
  { method = 'GET', path, body }: KubeQuestion,
): Promise<KubeAnswer> {
  const ca = await pki.read('ca.crt')
  const headers = {
    ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
    ...(body === undefined ? {} : { 'content-type': 'application/json' }),
  }
  const options = { method, ca, headers, agent: false as const, ...certificate }
  return new Promise((resolve, reject) => {
    const asked = request(`https://${endpoint}${path}`, options, (response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (chunk: string) => {
        text += chunk
      })
      response.once('end', () => resolve({ status: response.statusCode ?? 0, body: JSON.parse(text) }))
    })
    asked.once('error', reject)
    asked.end(body === undefined ? undefined : JSON.stringify(body))
  })
}

export interface MadeRequest {
  readonly pem: string
  /** PEM, of an EC key, as kubelets have. */
  readonly key: string
  /** As a machine names it when it asks for its grant. */
  readonly keySha256: string
}

/** By openssl: `subject` as `/O=system:nodes/CN=system:node:n1`; `further` are more of its arguments. */
export async function makeRequest(subject: string, ...further: readonly string[]): Promise<MadeRequest> {
  const both = await commandOutput('openssl', [
    ...['req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'],
    ...['-keyout', '-', '-subj', subject, ...further],
  ])
  const [key = '', pem = ''] = both.match(/-----BEGIN [^-]+-----[^-]+-----END [^-]+-----\n/g) ?? []
  const der = createPublicKey(key).export({ type: 'spki', format: 'der' })
  return { pem, key, keySha256: createHash('sha256').update(der).digest('hex') }
}

const KUBELET_USAGES = ['digital signature', 'key encipherment', 'client auth']

/** The object that a kubelet sends for it. */
export function requestObject(name: string, pem: string, spec: object = {}): object {
  return {
    ...{ apiVersion: 'certificates.k8s.io/v1', kind: 'CertificateSigningRequest', metadata: { name } },
    spec: {
      request: Buffer.from(pem).toString('base64'),
      signerName: 'kubernetes.io/kube-apiserver-client-kubelet',
      usages: KUBELET_USAGES,
      ...spec,
    },
  }
}

export const REQUESTS_PATH = '/apis/certificates.k8s.io/v1/certificatesigningrequests'

export const MACHINE_ID = 'ab'.repeat(16)

/** A Node without a kubelet. */
export function nodeObject(name: string, address: string, labels: Readonly<Record<string, string>> = {}) {
  return {
    ...{ apiVersion: 'v1', kind: 'Node', metadata: { name, labels } },
    status: {
      addresses: [{ type: 'InternalIP', address }],
      conditions: [{ type: 'Ready', status: 'True', reason: 'KubeletReady' }],
      nodeInfo: nodeInfo('v1.20.2'),
    },
  }
}

function nodeInfo(kubeletVersion: string) {
  return {
    ...{
      kubeletVersion,
      kubeProxyVersion: kubeletVersion,
      machineID: MACHINE_ID,
      systemUUID: '',
      bootID: '',
    },
    ...{ kernelVersion: '', osImage: '', containerRuntimeVersion: '', operatingSystem: 'linux' },
    architecture: 'amd64',
  }
}

/** A pod that is bound to a node already, and needs nobody to end it. */
export function podObject(name: string, nodeName: string, metadata: object = {}) {
  return {
    ...{ apiVersion: 'v1', kind: 'Pod', metadata: { name, namespace: 'default', ...metadata } },
    spec: {
      ...{ nodeName, terminationGracePeriodSeconds: 0, automountServiceAccountToken: false },
      tolerations: [{ operator: 'Exists' }],
      containers: [{ name: 'main', image: 'none.example/none' }],
    },
  }
}
