// Making X.509 certificates (RFC 5280): node-forge writes the DER, node:crypto makes the keys and signs.

import { createHash, type KeyObject, randomBytes, sign } from 'node:crypto'

import forge from 'node-forge'

const { asn1, pki } = forge

/** RFC 5280 §4.1.2.4 asks for a name that is not empty. */
export interface CertificateFacts {
  readonly commonName: string
  /** SubjectPublicKeyInfo, DER: RSA. */
  readonly publicKey: Uint8Array
  readonly fromMs: number
  readonly untilMs: number
  readonly use: CertificateUse
}

export type CertificateUse =
  | { readonly kind: 'ca' }
  | { readonly kind: 'client' }
  | { readonly kind: 'server'; readonly names: readonly string[]; readonly addresses: readonly string[] }

export interface Issuer {
  readonly privateKey: KeyObject
  /** PEM of its certificate; undefined signs itself. */
  readonly pem: string | undefined
}

const SHA256_WITH_RSA = pki.oids['sha256WithRSAEncryption'] ?? ''

/** PEM. */
export function makeCertificate(facts: CertificateFacts, issuer: Issuer): string {
  const certificate = pki.createCertificate()
  certificate.publicKey = pki.publicKeyFromAsn1(asn1.fromDer(toBinary(facts.publicKey)))
  certificate.serialNumber = randomSerial()
  certificate.validity.notBefore = new Date(facts.fromMs)
  certificate.validity.notAfter = new Date(facts.untilMs)
  certificate.setSubject([{ name: 'commonName', value: facts.commonName }])
  const by = issuer.pem === undefined ? certificate : pki.certificateFromPem(issuer.pem)
  certificate.setIssuer(by.subject.attributes)
  certificate.setExtensions([
    ...extensionsOf(facts.use),
    { name: 'subjectKeyIdentifier' },
    { name: 'authorityKeyIdentifier', keyIdentifier: keyIdentifierOf(by) },
  ])
  return signCertificate(certificate, by, issuer.privateKey)
}

/** To the byte (RFC 5280 §7.1): forge 1.4.3 encodes an issuer's UTF-8 a second time. */
function copyName(from: forge.pki.Certificate, to: forge.pki.Certificate): void {
  if (from === to) return
  const { value: source } = from.tbsCertificate
  const { value: target } = to.tbsCertificate
  if (!Array.isArray(source) || !Array.isArray(target)) throw new Error('a certificate without fields')
  // TBSCertificate (RFC 5280 §4.1): version, serial, signature, issuer, validity, subject.
  const subject = source[5]
  if (subject !== undefined) target[3] = subject
}

/** What the certificate itself says, for a CA of one's own may have made it otherwise than forge does. */
function keyIdentifierOf(certificate: forge.pki.Certificate): string {
  const own = certificate.getExtension('subjectKeyIdentifier') as { subjectKeyIdentifier?: string } | null
  if (own?.subjectKeyIdentifier !== undefined) return forge.util.hexToBytes(own.subjectKeyIdentifier)
  return certificate.generateSubjectKeyIdentifier().getBytes()
}

/** What forge would do by itself, but with OpenSSL's arithmetic, which takes the same time whatever the key. */
function signCertificate(
  certificate: forge.pki.Certificate,
  by: forge.pki.Certificate,
  privateKey: KeyObject,
): string {
  certificate.signatureOid = SHA256_WITH_RSA
  certificate.siginfo.algorithmOid = SHA256_WITH_RSA
  certificate.tbsCertificate = pki.getTBSCertificate(certificate)
  copyName(by, certificate)
  const signed = Buffer.from(asn1.toDer(certificate.tbsCertificate).getBytes(), 'latin1')
  certificate.signature = toBinary(sign('sha256', signed, privateKey))
  return pki.certificateToPem(certificate).replaceAll('\r\n', '\n')
}

function extensionsOf(use: CertificateUse): object[] {
  switch (use.kind) {
    case 'ca':
      return [
        { name: 'basicConstraints', cA: true, pathLenConstraint: 0, critical: true },
        { name: 'keyUsage', keyCertSign: true, cRLSign: true, critical: true },
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
