// The makers of TPMs whose word counts (setting identity/ek-cas): their CA certificates, and whom they vouch for.

import { X509Certificate } from 'node:crypto'

import { describeError } from '#lib/errors.ts'

export interface ReadMakers {
  readonly makers: readonly X509Certificate[]
  /** What in the file is of no use. */
  readonly problems: readonly string[]
}

const PEM_CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g

/** An ASN.1 SEQUENCE: what every certificate in DER begins with. Makers publish many of theirs so. */
const DER_SEQUENCE = 0x30

/** From a file with one certificate in DER, or any number in PEM. */
export function readMakers(file: Buffer): ReadMakers {
  const encoded = file[0] === DER_SEQUENCE ? [file] : (file.toString('latin1').match(PEM_CERTIFICATE) ?? [])
  if (encoded.length === 0) return { makers: [], problems: ['there is no certificate in it'] }
  const makers: X509Certificate[] = []
  const problems: string[] = []
  for (const one of encoded) {
    try {
      const certificate = new X509Certificate(one)
      if (!certificate.ca) problems.push(`${nameOf(certificate)} is not the certificate of a CA`)
      // Asked for here, for it throws when OpenSSL does not know the kind of key.
      else if (certificate.publicKey.type === 'public') makers.push(certificate)
    } catch (error) {
      problems.push(`a certificate cannot be read: ${describeError(error)}`)
    }
  }
  return { makers, problems }
}

/** Longer than any maker's; a ring of certificates that vouch for each other ends here. */
const MAX_CHAIN = 6

/** tcg-kp-EKCertificate (EK Credential Profile, 3.2.16): the same CA may certify keys that lie in no TPM. */
const EK_PURPOSE = '2.23.133.8.1'

/**
 * Why a certificate (DER) says nothing of the endorsement key; undefined when a maker vouches for it: the certificate is
 * for that key, and CA certificates of `makers` lead from it to one that signed itself, all of them valid at `nowMs`.
 * Signatures, names and dates are looked at one by one rather than by a verification of the whole chain: that stops at
 * the subject alternative name, which is critical in these certificates and which OpenSSL does not read (directory name only).
 */
export function refusalOfCertificate(
  der: Uint8Array,
  ekKey: Uint8Array,
  { makers, nowMs }: { readonly makers: readonly X509Certificate[]; readonly nowMs: number },
): string | undefined {
  let certificate: X509Certificate
  try {
    certificate = new X509Certificate(der)
    const key = certificate.publicKey.export({ type: 'spki', format: 'der' })
    if (!key.equals(ekKey)) return 'its certificate is for another key'
  } catch (error) {
    return `its certificate cannot be read: ${describeError(error)}`
  }
  if (certificate.ca) return 'its certificate is that of a CA'
  // Node calls the extended key usage so; undefined when there is none, as early ones had none.
  const purposes: readonly string[] | undefined = certificate.keyUsage
  if (purposes !== undefined && !purposes.includes(EK_PURPOSE))
    return 'its certificate is for another purpose'
  if (!isValid(certificate, nowMs)) return 'its certificate is not valid now'
  const leads = (from: X509Certificate, rest: number): boolean =>
    rest > 0 &&
    makers.some(
      (maker) =>
        isValid(maker, nowMs) &&
        isSignedBy(from, maker) &&
        (isSignedBy(maker, maker) || leads(maker, rest - 1)),
    )
  if (!leads(certificate, MAX_CHAIN)) {
    return `no valid certificates lead from its issuer (${oneLine(certificate.issuer)}) to a root`
  }
  return undefined
}

function isSignedBy(certificate: X509Certificate, issuer: X509Certificate): boolean {
  try {
    return certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey)
  } catch {
    return false // a signature of a kind that the issuer's key cannot have made
  }
}

function isValid(certificate: X509Certificate, nowMs: number): boolean {
  return certificate.validFromDate.getTime() <= nowMs && nowMs <= certificate.validToDate.getTime()
}

function nameOf({ subject }: X509Certificate): string {
  return subject === undefined ? 'a certificate without a name' : oneLine(subject)
}

/** Node writes one part of a name a line. */
function oneLine(name: string): string {
  return name.replaceAll('\n', ', ')
}
