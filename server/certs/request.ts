// Reading certificate requests (PKCS #10, RFC 2986) of whoever sends them. Of all they say, only the key counts.

import { createHash, createPublicKey, type KeyObject, verify } from 'node:crypto'

import forge from 'node-forge'

import { KitError } from '#lib/errors.ts'
import type { CertificateRequest } from '#machine/identity-ports.ts'

/** One of RSA 4096 with the names that tools put in is below 2 KiB. */
const PEM_MAX = 8 * 1024
const PEM =
  /^\s*-----BEGIN (NEW )?CERTIFICATE REQUEST-----\r?\n([A-Za-z0-9+/=\r\n]+)-----END \1CERTIFICATE REQUEST-----\s*$/

/** RFC 8017 §A.2.4: PKCS #1 version 1.5 with SHA-2. */
const DIGESTS: ReadonlyMap<string, string> = new Map([
  ['1.2.840.113549.1.1.11', 'sha256'],
  ['1.2.840.113549.1.1.12', 'sha384'],
  ['1.2.840.113549.1.1.13', 'sha512'],
])
const BITS = { min: 2048, max: 4096 }
/** Every tool's own; a large one would make each check of a signature slow. */
const EXPONENT = 65_537n

/** A request is ten deep, with extensions. A bit string is bytes to us, whatever they look like. */
const STRICT = { strict: true, parseAllBytes: true, decodeBitStrings: false, maxDepth: 16 }

const { asn1 } = forge
type Asn1 = forge.asn1.Asn1

/** Throws KitError `invalid-input`. */
export function readCertificateRequest(pem: string): CertificateRequest {
  const der = decodePem(pem)
  const { info, algorithm, signature } = split(der)
  const key = readKey(info)
  const digest = DIGESTS.get(algorithm)
  if (digest === undefined) throw refused('it is signed by something else than RSA with SHA-2')
  if (!verify(digest, toDer(info), key, signature)) throw refused('it is not signed by its own key')
  const publicKey = key.export({ type: 'spki', format: 'der' })
  return {
    publicKey,
    keySha256: createHash('sha256').update(publicKey).digest('hex'),
    digest: createHash('sha256').update(der).digest(),
  }
}

function decodePem(pem: string): Buffer {
  if (pem.length > PEM_MAX) throw refused(`it is larger than ${PEM_MAX} characters`)
  const base64 = PEM.exec(pem)?.[2]
  if (base64 === undefined) throw refused('it is not PEM')
  return Buffer.from(base64, 'base64')
}

/** CertificationRequest (RFC 2986 §4.2). */
function split(der: Buffer): { info: Asn1; algorithm: string; signature: Buffer } {
  const root = parse(der)
  const [info, algorithm, signature, ...rest] = childrenOf(root, asn1.Type.SEQUENCE)
  if (info === undefined || algorithm === undefined || signature === undefined || rest.length > 0)
    throw refused('it is not a PKCS #10 request')
  // BER allows many ways to write the same; what we hash and check has to be what was sent.
  if (!toDer(root).equals(der)) throw refused('it is not DER')
  const [oid] = childrenOf(algorithm, asn1.Type.SEQUENCE)
  return { info, algorithm: readOid(oid), signature: readBits(signature) }
}

/** CertificationRequestInfo (RFC 2986 §4.1): version, subject, key, attributes. */
function readKey(info: Asn1): KeyObject {
  const spki = childrenOf(info, asn1.Type.SEQUENCE)[2]
  if (spki === undefined) throw refused('it is not a PKCS #10 request')
  const key = importKey(toDer(spki))
  const { modulusLength = 0, publicExponent } = key.asymmetricKeyDetails ?? {}
  if (key.asymmetricKeyType !== 'rsa') throw refused('its key is not RSA')
  if (modulusLength < BITS.min || modulusLength > BITS.max)
    throw refused(`its key has ${modulusLength} bits, not ${BITS.min} to ${BITS.max}`)
  if (publicExponent !== EXPONENT) throw refused(`the exponent of its key is not ${EXPONENT}`)
  return key
}

function importKey(der: Buffer): KeyObject {
  try {
    return createPublicKey({ key: der, format: 'der', type: 'spki' })
  } catch (cause) {
    throw refused('its key cannot be read', cause)
  }
}

function parse(der: Buffer): Asn1 {
  try {
    return asn1.fromDer(der.toString('latin1'), STRICT)
  } catch (cause) {
    throw refused('it is not DER', cause)
  }
}

function childrenOf(node: Asn1, type: forge.asn1.Type): readonly Asn1[] {
  const isIt = node.tagClass === asn1.Class.UNIVERSAL && node.type === type && Array.isArray(node.value)
  if (!isIt || !Array.isArray(node.value)) throw refused('it is not a PKCS #10 request')
  return node.value
}

function readOid(node: Asn1 | undefined): string {
  if (node?.type !== asn1.Type.OID || typeof node.value !== 'string') throw refused('it names no algorithm')
  return asn1.derToOid(forge.util.createBuffer(node.value))
}

/** The first octet counts the bits that are unused in the last (X.690 §8.6.2): none in a signature. */
function readBits(node: Asn1): Buffer {
  const { type, value } = node
  if (type !== asn1.Type.BITSTRING || typeof value !== 'string' || value.charCodeAt(0) !== 0)
    throw refused('it has no signature')
  return Buffer.from(value.slice(1), 'latin1')
}

function toDer(node: Asn1): Buffer {
  return Buffer.from(asn1.toDer(node).getBytes(), 'latin1')
}

function refused(reason: string, cause?: unknown): KitError {
  return new KitError('invalid-input', `Cannot read the certificate request: ${reason}`, { cause })
}
