// The CAs of a cluster and the key pair of its service accounts: made, and checked, as the files that kubeadm has under `pki/`.

import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPair,
  type KeyObject,
  X509Certificate,
} from 'node:crypto'
import { promisify } from 'node:util'

import { BACKDATED_MS, DAY_MS } from './ca.ts'
import { makeCertificate } from './x509.ts'

/** By path under `pki/`; PEM. */
export type PkiFiles = ReadonlyMap<string, string>

/** Their files are `<path>.crt` and `<path>.key`; the names are kubeadm's. */
export const CLUSTER_AUTHORITIES = [
  { path: 'ca', commonName: 'kubernetes' },
  { path: 'front-proxy-ca', commonName: 'front-proxy-ca' },
  { path: 'etcd/ca', commonName: 'etcd-ca' },
] as const

export type AuthorityPath = (typeof CLUSTER_AUTHORITIES)[number]['path']

export const PRIVATE_FILES = ['ca.key', 'front-proxy-ca.key', 'etcd/ca.key', 'sa.key'] as const
export const PUBLIC_FILES = ['ca.crt', 'front-proxy-ca.crt', 'etcd/ca.crt', 'sa.pub'] as const

const LIFE_MS = 3_650 * DAY_MS

export interface ClusterAuthority {
  readonly path: AuthorityPath
  /** As the file has it: the certificate, and others that may follow. */
  readonly pem: string
  readonly certificate: X509Certificate
  readonly privateKey: KeyObject
  readonly untilMs: number
}

export interface ClusterPki {
  /** All eight. */
  readonly files: PkiFiles
  readonly authorities: Readonly<Record<AuthorityPath, ClusterAuthority>>
}

/** What `given` has is taken as it is; the rest is new. */
export async function makePkiFiles(nowMs: number, given: PkiFiles = new Map()): Promise<PkiFiles> {
  const files = new Map(given)
  for (const { path, commonName } of CLUSTER_AUTHORITIES) {
    if (files.has(`${path}.key`)) continue
    const { publicKey, privateKey } = await makeRsaKey()
    const pem = makeCertificate(
      {
        commonName,
        publicKey: publicKey.export({ type: 'spki', format: 'der' }),
        fromMs: nowMs - BACKDATED_MS,
        untilMs: nowMs + LIFE_MS,
        use: { kind: 'cluster-ca' },
      },
      { privateKey, pem: undefined },
    )
    files.set(`${path}.crt`, pem).set(`${path}.key`, pemOfRsa(privateKey))
  }
  if (!files.has('sa.key')) files.set('sa.key', pemOfRsa((await makeRsaKey()).privateKey))
  return withServiceAccountPublicKey(files)
}

/** kubeadm can do without `sa.pub`, and so can whoever copies its files. */
export function withServiceAccountPublicKey(files: PkiFiles): PkiFiles {
  const key = files.get('sa.key')
  if (key === undefined || files.has('sa.pub')) return files
  const publicKey = createPublicKey(readPrivateKey('sa.key', key))
  return new Map(files).set('sa.pub', publicKey.export({ type: 'spki', format: 'pem' }).toString())
}

/** Throws Error that completes "Cannot use <these>: " when something is missing, damaged or belongs to something else. */
export function readPki(files: PkiFiles): ClusterPki {
  const [ca, frontProxy, etcd] = CLUSTER_AUTHORITIES.map(({ path }) => readAuthority(files, path))
  if (ca === undefined || frontProxy === undefined || etcd === undefined) throw new Error('a CA is missing')
  const key = readPrivateKey('sa.key', fileOf(files, 'sa.key'))
  const publicKey = readOr(() => createPublicKey(fileOf(files, 'sa.pub')), 'sa.pub is damaged')
  if (!isSameKey(createPublicKey(key), publicKey))
    throw new Error('sa.pub belongs to another key than sa.key')
  const names = [...PUBLIC_FILES, ...PRIVATE_FILES].sort()
  const all = new Map(names.map((name) => [name, fileOf(files, name)]))
  return { files: all, authorities: { ca, 'front-proxy-ca': frontProxy, 'etcd/ca': etcd } }
}

export function readAuthority(files: PkiFiles, path: AuthorityPath): ClusterAuthority {
  const pem = fileOf(files, `${path}.crt`)
  const certificate = readOr(() => new X509Certificate(pem), `${path}.crt is damaged`)
  const privateKey = readPrivateKey(`${path}.key`, fileOf(files, `${path}.key`))
  if (!isSameKey(certificate.publicKey, createPublicKey(privateKey)))
    throw new Error(`${path}.key belongs to another certificate`)
  if (!certificate.ca) throw new Error(`${path}.crt is not the certificate of a CA`)
  if (!endsInRoot(pem))
    throw new Error(`${path}.crt did not sign itself, and the CA that signed it does not follow in the file`)
  return { path, pem, certificate, privateKey, untilMs: certificate.validToDate.getTime() }
}

/** The API's clients that are made with OpenSSL believe an intermediate CA only with its root. */
function endsInRoot(pem: string): boolean {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []
  return blocks.some((block) => {
    const one = readOr(() => new X509Certificate(block), 'a certificate is damaged')
    return one.checkIssued(one) && one.verify(one.publicKey)
  })
}

/**
 * By their bytes: Node's own comparisons leave an error of OpenSSL behind for keys of different kinds, and the next key that
 * is read, whoever reads it, then counts as damaged (seen on Node 24.21).
 */
export function isSameKey(left: KeyObject, right: KeyObject): boolean {
  return spkiOf(left).equals(spkiOf(right))
}

/** sha256 of the SubjectPublicKeyInfo, hex: what kubeadm calls the hash of a CA. */
export function publicKeySha256(certificate: X509Certificate): string {
  return createHash('sha256').update(spkiOf(certificate.publicKey)).digest('hex')
}

function spkiOf(publicKey: KeyObject): Buffer {
  return publicKey.export({ type: 'spki', format: 'der' })
}

/** kubeadm makes RSA keys, from 1.31 on also EC ones when it is told to; nothing else signs here. */
function readPrivateKey(file: string, pem: string): KeyObject {
  const key = readOr(() => createPrivateKey(pem), `${file} is damaged, or is encrypted`)
  if (key.asymmetricKeyType !== 'rsa' && key.asymmetricKeyType !== 'ec')
    throw new Error(`${file} is neither RSA nor EC`)
  return key
}

function fileOf(files: PkiFiles, path: string): string {
  const text = files.get(path)
  if (text === undefined) throw new Error(`${path} is missing`)
  return text
}

/** What OpenSSL says of damaged keys helps nobody, and is not to be shown. */
function readOr<Value>(read: () => Value, message: string): Value {
  try {
    return read()
  } catch (cause) {
    throw new Error(message, { cause })
  }
}

function makeRsaKey(): Promise<{ readonly publicKey: KeyObject; readonly privateKey: KeyObject }> {
  return promisify(generateKeyPair)('rsa', { modulusLength: 2048 })
}

/** PKCS #1, as kubeadm writes them. */
function pemOfRsa(key: KeyObject): string {
  return key.export({ type: 'pkcs1', format: 'pem' }).toString()
}
