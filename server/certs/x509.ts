// Making X.509 certificates (RFC 5280): node-forge writes the DER, node:crypto makes the keys and signs.

import { createHash, type KeyObject, randomBytes, sign, X509Certificate } from 'node:crypto'

import forge from 'node-forge'

const { asn1, pki } = forge
type Asn1 = forge.asn1.Asn1

/** RFC 5280 §4.1.2.4 asks for a name that is not empty. */
export interface CertificateFacts {
  readonly commonName: string
  readonly organization?: string
  /** SubjectPublicKeyInfo, DER: RSA. */
  readonly publicKey: Uint8Array
  readonly fromMs: number
  readonly untilMs: number
  readonly use: CertificateUse
}

export type CertificateUse =
  | { readonly kind: 'ca' }
  /** As kubeadm makes them. */
  | { readonly kind: 'cluster-ca' }
  | { readonly kind: 'client' }
  | { readonly kind: 'server'; readonly names: readonly string[]; readonly addresses: readonly string[] }

export interface Issuer {
  /** RSA or EC. */
  readonly privateKey: KeyObject
  /** PEM of its certificate, the first one in it; undefined signs itself. */
  readonly pem: string | undefined
}

/** What of an issuer goes into what it signs. */
interface IssuerParts {
  readonly name: Asn1
  /** One byte a character. */
  readonly keyIdentifier: string
}

const SHA256_WITH_RSA = pki.oids['sha256WithRSAEncryption'] ?? ''
/** RFC 5758 §3.2. */
const ECDSA_WITH_SHA256 = '1.2.840.10045.4.3.2'

/** A bit string is bytes to us, whatever they look like. */
const STRICT = { strict: true, parseAllBytes: true, decodeBitStrings: false, maxDepth: 32 }

/** PEM. */
export function makeCertificate(facts: CertificateFacts, issuer: Issuer): string {
  const certificate = pki.createCertificate()
  certificate.publicKey = pki.publicKeyFromAsn1(asn1.fromDer(toBinary(facts.publicKey)))
  certificate.serialNumber = randomSerial()
  certificate.validity.notBefore = new Date(facts.fromMs)
  certificate.validity.notAfter = new Date(facts.untilMs)
  const subject = subjectOf(facts)
  certificate.setSubject(subject)
  certificate.setIssuer(subject)
  const by = issuer.pem === undefined ? undefined : readIssuer(issuer.pem)
  const keyIdentifier = by?.keyIdentifier ?? certificate.generateSubjectKeyIdentifier().getBytes()
  certificate.setExtensions([
    ...extensionsOf(facts.use),
    { name: 'subjectKeyIdentifier' },
    { name: 'authorityKeyIdentifier', keyIdentifier },
  ])
  return signCertificate(certificate, by?.name, issuer.privateKey)
}

/** UTF-8, for a person's name may be anything; what is in PrintableString (X.680 §41.4) stays so, as other tools have it. */
function subjectOf({ commonName, organization }: CertificateFacts): forge.pki.CertificateField[] {
  const field = (name: string, value: string) => ({
    name,
    value,
    ...(!/^[A-Za-z0-9 '()+,./:=?-]+$/.test(value) && { valueTagClass: asn1.Type.UTF8 as never }),
  })
  return [
    ...(organization === undefined ? [] : [field('organizationName', organization)]),
    field('commonName', commonName),
  ]
}

/**
 * The name to the byte (RFC 5280 §7.1): forge 1.4.3 encodes an issuer's UTF-8 a second time, and reads no certificate of
 * an EC key at all. The identifier is what the certificate itself says, for a CA of one's own may have made it otherwise.
 */
function readIssuer(pem: string): IssuerParts {
  const [tbs] = childrenOf(asn1.fromDer(toBinary(new X509Certificate(pem).raw), STRICT))
  // TBSCertificate (RFC 5280 §4.1), version 3: version, serial, signature, issuer, validity, subject, key, …, extensions.
  const fields = childrenOf(tbs)
  const [name, key] = [fields[5], fields[6]]
  const extensions = fields.find(
    (field) => field.tagClass === asn1.Class.CONTEXT_SPECIFIC && field.type === 3,
  )
  if (name === undefined || extensions === undefined)
    throw new Error('a certificate of a CA without extensions')
  const own = pki
    .certificateExtensionsFromAsn1(extensions)
    .find((extension) => extension.name === 'subjectKeyIdentifier')?.subjectKeyIdentifier
  return { name, keyIdentifier: own === undefined ? hashOfKey(key) : forge.util.hexToBytes(own) }
}

/** RFC 5280 §4.2.1.2, method 1: of the bits themselves, whose first octet counts the unused ones. */
function hashOfKey(spki: Asn1 | undefined): string {
  const bits = childrenOf(spki)[1]?.value
  if (typeof bits !== 'string') throw new Error('a certificate without a key')
  return createHash('sha1').update(bits.slice(1), 'latin1').digest().toString('latin1')
}

function childrenOf(node: Asn1 | undefined): readonly Asn1[] {
  if (!Array.isArray(node?.value)) throw new Error('a certificate without fields')
  return node.value
}

/** What forge would do by itself, but with OpenSSL's arithmetic, which takes the same time whatever the key. */
function signCertificate(
  certificate: forge.pki.Certificate,
  issuerName: Asn1 | undefined,
  privateKey: KeyObject,
): string {
  certificate.signatureOid = SHA256_WITH_RSA
  certificate.siginfo.algorithmOid = SHA256_WITH_RSA
  const tbs = pki.getTBSCertificate(certificate)
  if (!Array.isArray(tbs.value)) throw new Error('a certificate without fields')
  const algorithm = algorithmOf(privateKey)
  tbs.value[2] = algorithm
  if (issuerName !== undefined) tbs.value[3] = issuerName
  const signature = toBinary(sign('sha256', toDer(tbs), privateKey))
  const bits = asn1.create(asn1.Class.UNIVERSAL, asn1.Type.BITSTRING, false, `\0${signature}`)
  return new X509Certificate(toDer(sequence([tbs, algorithm, bits]))).toString()
}

/** RFC 4055 §5 wants NULL after RSA's, RFC 5758 §3.2 nothing after ECDSA's. */
function algorithmOf(key: KeyObject): Asn1 {
  const oid = (text: string) =>
    asn1.create(asn1.Class.UNIVERSAL, asn1.Type.OID, false, asn1.oidToDer(text).getBytes())
  if (key.asymmetricKeyType === 'ec') return sequence([oid(ECDSA_WITH_SHA256)])
  return sequence([oid(SHA256_WITH_RSA), asn1.create(asn1.Class.UNIVERSAL, asn1.Type.NULL, false, '')])
}

function sequence(parts: Asn1[]): Asn1 {
  return asn1.create(asn1.Class.UNIVERSAL, asn1.Type.SEQUENCE, true, parts)
}

function toDer(node: Asn1): Buffer {
  return Buffer.from(asn1.toDer(node).getBytes(), 'latin1')
}

function extensionsOf(use: CertificateUse): object[] {
  switch (use.kind) {
    case 'ca':
      return [
        { name: 'basicConstraints', cA: true, pathLenConstraint: 0, critical: true },
        { name: 'keyUsage', keyCertSign: true, cRLSign: true, critical: true },
      ]
    case 'cluster-ca':
      return [
        { name: 'basicConstraints', cA: true, critical: true },
        {
          name: 'keyUsage',
          digitalSignature: true,
          keyEncipherment: true,
          keyCertSign: true,
          critical: true,
        },
      ]
    case 'client':
      return [...LEAF, { name: 'extKeyUsage', clientAuth: true, critical: true }]
    case 'server':
      return [
        ...LEAF,
        { name: 'extKeyUsage', serverAuth: true },
        {
          name: 'subjectAltName',
          altNames: [
            ...use.names.map((value) => ({ type: 2, value })),
            ...use.addresses.map((ip) => ({ type: 7, ip })),
          ],
        },
      ]
    default:
      return use satisfies never
  }
}

const LEAF = [
  { name: 'basicConstraints', cA: false, critical: true },
  { name: 'keyUsage', digitalSignature: true, critical: true },
]

/** Positive, and 20 octets at most with what makes it so (RFC 5280 §4.1.2.2). */
function randomSerial(): string {
  const bytes = randomBytes(16)
  bytes[0] = ((bytes[0] ?? 0) & 0x3f) | 0x40
  return bytes.toString('hex')
}

/** sha256 of a certificate's DER, hex. */
export function fingerprintOf(der: Uint8Array): string {
  return createHash('sha256').update(der).digest('hex')
}

/** forge keeps bytes in strings, one a character. */
function toBinary(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('latin1')
}
