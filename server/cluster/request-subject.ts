// Reading whom a kubelet's certificate request is for, and which key (PKCS #10, RFC 2986). Anybody with a token writes these.

import { createHash } from 'node:crypto'

import forge from 'node-forge'

import { KitError } from '#lib/errors.ts'

export interface RequestSubject {
  readonly commonName: string
  readonly organizations: readonly string[]
  /** Any attribute (they carry further names), or anything in the subject but common name and organizations. */
  readonly hasOtherNames: boolean
  /** Hex, of the SubjectPublicKeyInfo in DER. */
  readonly keySha256: string
}

/** One with an RSA key of 4096 bits and many names is below 4 KiB. */
const PEM_MAX = 8 * 1024
/** Nothing before or after: Go's reader would skip it, and look at another request than we do. */
const PEM =
  /^-----BEGIN CERTIFICATE REQUEST-----\r?\n([A-Za-z0-9+/=\r\n]+)-----END CERTIFICATE REQUEST-----\s*$/

/** X.520, RFC 5280 Appendix A. */
const COMMON_NAME = '2.5.4.3'
const ORGANIZATION = '2.5.4.10'

/** Ten deep, with extensions. Bit strings are bytes to us, whatever they look like. */
const STRICT = { strict: true, parseAllBytes: true, decodeBitStrings: false, maxDepth: 16 }

const { asn1 } = forge
type Asn1 = forge.asn1.Asn1

/** The API server has checked that it is signed by its own key. Throws KitError `invalid-input`. */
export function readRequestSubject(pem: string): RequestSubject {
  const root = parse(decodePem(pem))
  const [info, algorithm, signature, ...rest] = childrenOf(root, asn1.Type.SEQUENCE)
  if (algorithm === undefined || signature === undefined || rest.length > 0)
    throw refused('it has other parts')
  // CertificationRequestInfo (RFC 2986 §4.1): version, subject, key, attributes.
  const [, subject, key, attributes, ...more] = childrenOf(info, asn1.Type.SEQUENCE)
  if (key === undefined || more.length > 0) throw refused('it has other parts')
  const names = childrenOf(subject, asn1.Type.SEQUENCE).map(readAttribute)
  const commonNames = names.filter(({ oid }) => oid === COMMON_NAME)
  const organizations = names.filter(({ oid }) => oid === ORGANIZATION)
  if (commonNames.length > 1) throw refused('it has several common names')
  return {
    commonName: commonNames[0]?.text ?? '',
    organizations: organizations.map(({ text }) => text),
    hasOtherNames: names.length > commonNames.length + organizations.length || !isEmpty(attributes),
    keySha256: createHash('sha256').update(asn1.toDer(key).getBytes(), 'latin1').digest('hex'),
  }
}

function decodePem(pem: string): Buffer {
  if (pem.length > PEM_MAX) throw refused(`it is larger than ${PEM_MAX} characters`)
  const base64 = PEM.exec(pem)?.[1]
  if (base64 === undefined) throw refused('it is not PEM')
  return Buffer.from(base64, 'base64')
}

function parse(der: Buffer): Asn1 {
  const root = attempt(() => asn1.fromDer(der.toString('latin1'), STRICT))
  // BER allows many ways to write the same: only the one that every reader reads alike.
  const same = attempt(() => Buffer.from(asn1.toDer(root).getBytes(), 'latin1').equals(der))
  if (!same) throw refused('it is not DER')
  return root
}

/** RelativeDistinguishedName (RFC 5280 §4.1.2.4) of exactly one attribute. */
function readAttribute(node: Asn1): { oid: string; text: string } {
  const [pair, ...others] = childrenOf(node, asn1.Type.SET)
  if (others.length > 0) throw refused('a part of its subject has several values')
  const [type, value, ...rest] = childrenOf(pair, asn1.Type.SEQUENCE)
  if (type?.type !== asn1.Type.OID || typeof type.value !== 'string' || rest.length > 0)
    throw refused('its subject cannot be read')
  return { oid: asn1.derToOid(forge.util.createBuffer(type.value)), text: readText(value) }
}

/** What Go's encoder chooses for names of nodes and groups, and these are ASCII. */
function readText(node: Asn1 | undefined): string {
  const isText = node?.type === asn1.Type.UTF8 || node?.type === asn1.Type.PRINTABLESTRING
  if (!isText || node?.tagClass !== asn1.Class.UNIVERSAL || typeof node.value !== 'string')
    throw refused('its subject has text in another encoding')
  if (!/^[\x20-\x7e]{1,253}$/.test(node.value)) throw refused('its subject has other text than ASCII')
  return node.value
}

/** Go writes an empty set where there are none. */
function isEmpty(attributes: Asn1 | undefined): boolean {
  return attributes === undefined || (Array.isArray(attributes.value) && attributes.value.length === 0)
}

function childrenOf(node: Asn1 | undefined, type: forge.asn1.Type): readonly Asn1[] {
  if (node?.tagClass !== asn1.Class.UNIVERSAL || node.type !== type || !Array.isArray(node.value))
    throw refused('it is not PKCS #10')
  return node.value
}

function attempt<Result>(read: () => Result): Result {
  try {
    return read()
  } catch (cause) {
    throw refused('it is not DER', cause)
  }
}

function refused(reason: string, cause?: unknown): KitError {
  return new KitError('invalid-input', `Cannot read the certificate request: ${reason}`, { cause })
}
