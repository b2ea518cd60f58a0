// What a machine's TPM says of itself: read, judged by the rules of docs/security.md, and put to the proof.

import { createHash, createPublicKey, randomBytes } from 'node:crypto'

import { DecodeError } from '#lib/bytes.ts'
import type { Clock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import type { Log } from '#lib/log.ts'
import type { CertificateRequest, TpmClaim, TpmVerifier, VerifiedClaim } from '#machine/identity-ports.ts'
import {
  decodeTpmPublic,
  encodeTpmPublic,
  endorsementKeyOf,
  TPM_ATTRIBUTE,
  type TpmRsaPublic,
  tpmNameOf,
} from '#wire/tpm2.ts'
import { encodeCredentialFile, makeTpmCredential, rsaKeyOf, TPM_SECRET_BYTES } from '#wire/tpm2-credential.ts'

import { refusalOfCertificate } from './makers.ts'
import { type Loaded, loadEkList, loadMakers } from './vouchers.ts'

export interface TpmVerifierOptions {
  /** The setting identity/ek-list: a file. */
  readonly ekList?: string | undefined
  /** The setting identity/ek-cas: a folder. */
  readonly ekCas?: string | undefined
  readonly clock: Clock
  readonly log: Log
}

export interface TpmVouchers extends TpmVerifier {
  /** Writes to the log what in the files of the settings is of no use: at start, so that nobody has to wait for a machine to find out. */
  tellProblems(): Promise<void>
}

export function createTpmVerifier(options: TpmVerifierOptions): TpmVouchers {
  const { ekList, ekCas, clock, log } = options
  const told = { list: '', makers: '' }
  const tell = (what: keyof typeof told, problems: readonly string[]) => {
    const text = problems.join('\n')
    if (text === told[what]) return // with every machine that asks
    told[what] = text
    for (const problem of problems) log.warn({ setting: SETTINGS[what] }, problem)
  }
  const hashes = shared(async () => {
    const loaded = ekList === undefined ? NO_HASHES : await loadEkList(ekList)
    tell('list', loaded.problems)
    return loaded.value
  })
  const makers = shared(async () => {
    const loaded = ekCas === undefined ? NO_MAKERS : await loadMakers(ekCas)
    tell('makers', loaded.problems)
    return loaded.value
  })

  return {
    async tellProblems() {
      await Promise.all([hashes(), makers()])
    },
    readClaim(claim, request) {
      const ek = readEndorsementKey(claim.ek)
      const key = readMachineKey(claim.key, request)
      const ekKey = rsaKeyOf(ek).export({ type: 'spki', format: 'der' })
      const ekSha256 = createHash('sha256').update(ekKey).digest('hex')
      return {
        ekSha256,
        async vouchedBy() {
          if ((await hashes()).has(ekSha256)) return 'ek-list'
          if (ekCas === undefined || claim.ekCertificate === undefined) return undefined
          const known = { makers: await makers(), nowMs: clock.nowMs() }
          const refusal = refusalOfCertificate(claim.ekCertificate, ekKey, known)
          if (refusal === undefined) return 'ek-cas'
          log.info({ ekSha256 }, `No maker vouches for a TPM: ${refusal}`)
          return undefined
        },
        makeCredential: () => makeCredential(ek, key),
      }
    },
  }
}

const SETTINGS = { list: 'identity/ek-list', makers: 'identity/ek-cas' } as const
const NO_HASHES: Loaded<ReadonlySet<string>> = { value: new Set(), problems: [] }
const NO_MAKERS: Awaited<ReturnType<typeof loadMakers>> = { value: [], problems: [] }

/** Those who ask while it runs share what it gives: a flood of machines does not read the files a thousand times at once. */
function shared<Value>(load: () => Promise<Value>): () => Promise<Value> {
  let loading: Promise<Value> | undefined
  return () => {
    loading ??= load().finally(() => {
      loading = undefined
    })
    return loading
  }
}

function makeCredential(ek: TpmRsaPublic, key: TpmRsaPublic): ReturnType<VerifiedClaim['makeCredential']> {
  const secret = randomBytes(TPM_SECRET_BYTES)
  const credential = encodeCredentialFile(makeTpmCredential(ek, tpmNameOf(key), secret))
  return { credential, secret }
}

/** Of the default template to the bit: its attributes keep it in the TPM and let it open credentials and nothing else. */
function readEndorsementKey(bytes: TpmClaim['ek']): TpmRsaPublic {
  const ek = decode(bytes, 'the endorsement key')
  if (ek.keyBits === EK_KEY_BITS && Buffer.from(encodeTpmPublic(endorsementKeyOf(ek.modulus))).equals(bytes))
    return ek
  throw new KitError(
    'invalid-input',
    'Cannot use the endorsement key: it is not an RSA key of 2048 bits by the default template',
    { fix: 'make it with: tpm2_createek -G rsa' },
  )
}

const EK_KEY_BITS = 2048

/** What keeps it in that one TPM, made there; the TPM itself vouches for them when it opens a credential for a key of that name. */
const NEEDED = ['fixedTpm', 'fixedParent', 'sensitiveDataOrigin', 'sign'] as const

const SHORTEST_KEY_BITS = 2048

function readMachineKey(bytes: TpmClaim['key'], request: CertificateRequest): TpmRsaPublic {
  const key = decode(bytes, "the machine's key")
  const refuse = (why: string) => {
    throw new KitError('invalid-input', `Cannot use the machine's key: ${why}`)
  }
  const missing = NEEDED.filter((name) => (key.attributes & TPM_ATTRIBUTE[name]) === 0)
  if (missing.length > 0) refuse(`it is not ${missing.join(', ')}`)
  // A restricted key signs only what the TPM itself has said: it could not have signed the request.
  if ((key.attributes & TPM_ATTRIBUTE.restricted) !== 0) refuse('it is restricted')
  if (key.keyBits < SHORTEST_KEY_BITS) refuse(`it has ${key.keyBits} bits`)
  if (!rsaKeyOf(key).equals(publicKeyOf(request))) refuse('it is not the key of the certificate request')
  return key
}

function publicKeyOf({ publicKey }: CertificateRequest) {
  return createPublicKey({ key: Buffer.from(publicKey), format: 'der', type: 'spki' })
}

function decode(bytes: Uint8Array, what: string): TpmRsaPublic {
  try {
    return decodeTpmPublic(bytes)
  } catch (error) {
    if (!(error instanceof DecodeError)) throw error
    throw new KitError('invalid-input', `Cannot read ${what}: ${error.message}`, { cause: error })
  }
}
