// What is believed of a TPM, and of those who vouch for it: keys in memory, and a real maker's certificates.

import { createHash, generateKeyPairSync, type KeyObject, X509Certificate } from 'node:crypto'
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

import test, { type ExecutionContext } from 'ava'

import { type Clock, systemClock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import { type Log, silentLog } from '#lib/log.ts'
import { commandOutput } from '#lib/process.ts'
import type { CertificateRequest, TpmClaim } from '#machine/identity-ports.ts'
import { MACHINE_KEY_ATTRIBUTES, makeSoftTpm } from '#testing/soft-tpm.ts'
import { makeSwtpmWithCertificate, startSwtpm } from '#testing/swtpm.ts'
import { decodeTpmPublic, TPM_ATTRIBUTE } from '#wire/tpm2.ts'
import { rsaKeyOf } from '#wire/tpm2-credential.ts'

import { parseEkList } from './ek-list.ts'
import { readMakers } from './makers.ts'
import { createTpmVerifier } from './verifier.ts'
import { loadMakers } from './vouchers.ts'

const QUIET = { clock: systemClock, log: silentLog }
const TPM = makeSoftTpm()
const KEY = generateKeyPairSync('rsa', { modulusLength: 2048 })
const CLAIM: TpmClaim = { ek: TPM.ek, key: TPM.publicOf(KEY.publicKey) }

function requestOf(key: KeyObject): CertificateRequest {
  const publicKey = key.export({ type: 'spki', format: 'der' })
  return { publicKey, keySha256: sha256(publicKey), digest: new Uint8Array(32) }
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}

const EK_SHA256 = sha256(TPM.ekKey.export({ type: 'spki', format: 'der' }))

async function temporaryFolder(t: ExecutionContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'kit-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  return folder
}

/** What was warned of, and what was told. */
function heard() {
  const warnings: string[] = []
  const news: string[] = []
  const log: Log = {
    ...silentLog,
    warn: (_fields, message) => void warnings.push(message),
    info: (_fields, message) => void news.push(message),
  }
  return { warnings, news, log }
}

test('readClaim() hides a secret that only that TPM with that key gets out', async (t) => {
  const claim = createTpmVerifier(QUIET).readClaim(CLAIM, requestOf(KEY.publicKey))
  t.is(claim.ekSha256, EK_SHA256)
  t.is(await claim.vouchedBy(), undefined)
  const { credential, secret } = claim.makeCredential()
  t.is(secret.length, 32)
  t.deepEqual(Buffer.from(TPM.activate(credential, KEY.privateKey)), Buffer.from(secret))
  t.notDeepEqual(claim.makeCredential().secret, secret)
})

test('readClaim() takes a key that may decrypt too, as the ones of tpm2-openssl', (t) => {
  const key = TPM.publicOf(KEY.publicKey, MACHINE_KEY_ATTRIBUTES | TPM_ATTRIBUTE.decrypt)
  t.notThrows(() => createTpmVerifier(QUIET).readClaim({ ...CLAIM, key }, requestOf(KEY.publicKey)))
})

const without = (name: keyof typeof TPM_ATTRIBUTE) =>
  TPM.publicOf(KEY.publicKey, MACHINE_KEY_ATTRIBUTES & ~TPM_ATTRIBUTE[name])
const SHORT = generateKeyPairSync('rsa', { modulusLength: 1024 })
const OTHER = generateKeyPairSync('rsa', { modulusLength: 2048 })

const REFUSED: readonly [string, Partial<TpmClaim>, RegExp][] = [
  ['noise', { key: Buffer.of(1, 2, 3) }, /^Cannot read the machine's key: public area: 258 bytes wanted/],
  ['noise as endorsement key', { ek: Buffer.alloc(0) }, /^Cannot read the endorsement key/],
  ['a key that can leave the TPM', { key: without('fixedTpm') }, /key: it is not fixedTpm$/],
  ['a key that can be duplicated', { key: without('fixedParent') }, /it is not fixedParent$/],
  ['a key that was brought in', { key: without('sensitiveDataOrigin') }, /it is not sensitiveDataOrigin$/],
  ['a key that does not sign', { key: without('sign') }, /it is not sign$/],
  [
    'a restricted key',
    { key: TPM.publicOf(KEY.publicKey, MACHINE_KEY_ATTRIBUTES | TPM_ATTRIBUTE.restricted) },
    /it is restricted$/,
  ],
  ['a short key', { key: TPM.publicOf(SHORT.publicKey) }, /it has 1024 bits$/],
  ['another key', { key: TPM.publicOf(OTHER.publicKey) }, /it is not the key of the certificate request$/],
  [
    'an endorsement key that signs',
    { ek: TPM.publicOf(TPM.ekKey) },
    /^Cannot use the endorsement key: it is not an RSA key of 2048 bits by the default template$/,
  ],
]

for (const [title, change, message] of REFUSED) {
  test(`readClaim() refuses ${title}`, (t) => {
    const claim = { ...CLAIM, ...change }
    const verifier = createTpmVerifier(QUIET)
    const error = t.throws(() => verifier.readClaim(claim, requestOf(KEY.publicKey)), { message })
    t.is(error instanceof KitError && error.code, 'invalid-input')
  })
}

test('parseEkList() takes hashes with comments, and tells the number of each other line', (t) => {
  const { hashes, problems } = parseEkList(
    [
      '# rack 4',
      '',
      `${'AB'.repeat(32)}\tnode-1  # left`,
      `  ${'cd'.repeat(32)}`,
      `${'cd'.repeat(32)}x`,
      'node-2',
      '',
    ].join('\r\n'),
  )
  t.deepEqual([...hashes], ['ab'.repeat(32), 'cd'.repeat(32)])
  t.deepEqual(
    problems.map(({ line }) => line),
    [5, 6],
  )
  t.is(
    problems[1]?.message,
    'Cannot read "node-2": it must be 64 hex digits, then blanks and a comment if you like',
  )
})

test('vouchedBy() reads the list anew, tells its problems once, and believes nobody without it', async (t) => {
  const ekList = join(await temporaryFolder(t), 'list')
  const { warnings, log } = heard()
  const verifier = createTpmVerifier({ ekList, clock: systemClock, log })
  const claim = verifier.readClaim(CLAIM, requestOf(KEY.publicKey))
  t.is(await claim.vouchedBy(), undefined)
  t.is(await claim.vouchedBy(), undefined)
  t.deepEqual(warnings, [`Cannot read ${ekList}: it is not there`])
  await writeFile(ekList, `nonsense\n${EK_SHA256} node-1\n`)
  t.is(await claim.vouchedBy(), 'ek-list')
  t.is(warnings.length, 2)
  t.true(warnings[1]?.startsWith(`${ekList} line 1: Cannot read "nonsense"`))
  await writeFile(ekList, `${'00'.repeat(32)}\n`)
  t.is(await claim.vouchedBy(), undefined)
})

/** A TPM that its maker certified, and what the machine with it would send; the private key of its own key stays in it. */
async function certifiedTpm(t: ExecutionContext) {
  const folder = await temporaryFolder(t)
  const { makerFolder } = await makeSwtpmWithCertificate(folder)
  const tpm = await startSwtpm(folder)
  t.teardown(() => tpm.stop())
  await tpm.run('tpm2_createek', '-G', 'rsa', '-c', 'ek.ctx', '-u', 'ek.pub')
  await tpm.run('tpm2_nvread', '-C', 'o', '-o', 'ek.crt', '0x01c00002')
  const ekCertificate = await tpm.read('ek.crt')
  const claim: TpmClaim = { ek: await tpm.read('ek.pub'), key: CLAIM.key, ekCertificate }
  const certificates = {
    root: join(makerFolder, 'swtpm-localca-rootca-cert.pem'),
    issuer: join(makerFolder, 'issuercert.pem'),
  }
  return { tpm, claim, certificates, folder }
}

/** A folder with copies of these files. */
async function folderOf(t: ExecutionContext, files: readonly string[]): Promise<string> {
  const folder = await temporaryFolder(t)
  for (const [index, file] of files.entries()) await copyFile(file, join(folder, `${index}.pem`))
  return folder
}

test('vouchedBy() believes the certificate of a TPM whose maker is in the folder, by way of an intermediate', async (t) => {
  const { tpm, claim, certificates } = await certifiedTpm(t)
  const { root, issuer } = certificates
  const request = requestOf(KEY.publicKey)
  const ask = async (files: readonly string[], asked = claim, clock: Clock = systemClock) => {
    const { news, log } = heard()
    const verifier = createTpmVerifier({ ekCas: await folderOf(t, files), clock, log })
    return (await verifier.readClaim(asked, request).vouchedBy()) ?? news.join()
  }
  t.is(await ask([root, issuer]), 'ek-cas')
  t.regex(await ask([root]), /no valid certificates lead from its issuer \(CN=swtpm-localca\) to a root$/)
  t.regex(await ask([issuer]), /to a root$/)
  t.regex(await ask([]), /to a root$/)
  t.is(await ask([root, issuer], { ek: claim.ek, key: claim.key }), '', 'without a certificate')
  t.regex(await ask([root, issuer], { ...claim, ek: TPM.ek }), /its certificate is for another key$/)
  t.regex(await ask([root, issuer], { ...claim, ekCertificate: Buffer.of(0x30) }), /cannot be read/)

  const { validFromDate } = new X509Certificate(claim.ekCertificate ?? Buffer.alloc(0))
  const before: Clock = { ...systemClock, nowMs: () => validFromDate.getTime() - 1000 }
  t.regex(await ask([root, issuer], claim, before), /not valid now$/)

  // What docs/configuration.md tells people to do for the list.
  await tpm.run('tpm2_createek', '-G', 'rsa', '-c', 'ek.ctx', '-f', 'pem', '-u', 'ek.pem')
  const der = await commandOutput('sh', ['-c', 'openssl pkey -pubin -in ek.pem -outform der | sha256sum'], {
    cwd: tpm.folder,
  })
  t.is(der.split(' ')[0], createTpmVerifier(QUIET).readClaim(claim, request).ekSha256)
})

test('vouchedBy() asks for the purpose, the dates and the very CA', async (t) => {
  const folder = await temporaryFolder(t)
  const openssl = (...args: readonly string[]) => commandOutput('openssl', args, { cwd: folder })
  const makeCa = (name: string) =>
    openssl(
      ...['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-subj', '/CN=Maker', '-days', '2'],
      ...['-keyout', `${name}.key`, '-out', `${name}.pem`],
    )
  await makeCa('maker')
  await makeCa('pretender')
  await writeFile(join(folder, 'ek.pub'), TPM.ekKey.export({ type: 'spki', format: 'pem' }))
  const certify = async (ca: string, extensions: string) => {
    await writeFile(join(folder, 'extensions'), extensions)
    await openssl(
      ...[
        'x509',
        '-new',
        '-force_pubkey',
        'ek.pub',
        '-subj',
        '/CN=x',
        '-days',
        '9',
        '-extfile',
        'extensions',
      ],
      ...['-CA', `${ca}.pem`, '-CAkey', `${ca}.key`, '-outform', 'der', '-out', 'made.der'],
    )
    return readFile(join(folder, 'made.der'))
  }
  const ekCas = await folderOf(t, [join(folder, 'maker.pem')])
  const ask = async (ekCertificate: Buffer, clock: Clock = systemClock) => {
    const { news, log } = heard()
    const verifier = createTpmVerifier({ ekCas, clock, log })
    const claim = verifier.readClaim({ ...CLAIM, ekCertificate }, requestOf(KEY.publicKey))
    return (await claim.vouchedBy()) ?? news.join()
  }
  const purpose = 'extendedKeyUsage = 2.23.133.8.1\n'
  const unknown = `${purpose}1.2.3.4 = critical,ASN1:NULL\nsubjectAltName = critical,dirName:tpm\n[tpm]\nCN = t\n`
  t.is(await ask(await certify('maker', purpose)), 'ek-cas')
  t.is(await ask(await certify('maker', unknown)), 'ek-cas', 'critical extensions that nobody knows')
  t.is(await ask(await certify('maker', 'keyUsage = keyEncipherment\n')), 'ek-cas')
  t.regex(await ask(await certify('maker', 'extendedKeyUsage = serverAuth\n')), /another purpose$/)
  t.regex(await ask(await certify('maker', 'basicConstraints = critical,CA:true\n')), /that of a CA$/)
  t.regex(await ask(await certify('pretender', purpose)), /to a root$/)
  const later: Clock = { ...systemClock, nowMs: () => Date.now() + 5 * 24 * 3600_000 }
  t.regex(await ask(await certify('maker', purpose), later), /to a root$/, 'the CA has run out')
})

test('loadMakers() takes every certificate of a CA in PEM and DER, and tells what it cannot use', async (t) => {
  const { certificates, claim } = await certifiedTpm(t)
  const folder = await temporaryFolder(t)
  const [root, issuer] = [await readFile(certificates.root), await readFile(certificates.issuer)]
  await writeFile(join(folder, 'both.pem'), Buffer.concat([Buffer.from('Maker\n'), root, issuer]))
  await writeFile(join(folder, 'root.der'), new X509Certificate(root).raw)
  await writeFile(join(folder, 'tpm.crt'), claim.ekCertificate ?? '')
  await writeFile(join(folder, 'README.md'), 'where they are from')
  await writeFile(join(folder, 'notes.txt'), 'nothing')
  await writeFile(
    join(folder, 'broken.pem'),
    '-----BEGIN CERTIFICATE-----\nMAo=\n-----END CERTIFICATE-----\n',
  )
  await mkdir(join(folder, 'old'))
  const { value, problems } = await loadMakers(folder)
  t.is(value.length, 3)
  t.is(problems.length, 3)
  t.regex(problems[0] ?? '', /broken\.pem: a certificate cannot be read: /)
  t.is(problems[1], `${folder}/notes.txt: there is no certificate in it`)
  t.is(problems[2], `${folder}/tpm.crt: CN=unknown is not the certificate of a CA`)
  t.deepEqual(await loadMakers(join(folder, 'none')), {
    value: [],
    problems: [`Cannot read ${folder}/none: it is not there`],
  })
  t.deepEqual(readMakers(Buffer.alloc(0)).makers, [])
})

const LIBRARY = fileURLToPath(new URL('../../boot/node/root/usr/lib/kit/identity-tpm.sh', import.meta.url))

/** The machine's own library, with a TPM behind which no kernel makes room; that openssl can use such a key is tested with the library. */
const SHELL = `
. ${LIBRARY}
tpm() { tpm2 "$@" && tpm2 flushcontext --transient-object; }
key_works() { :; }
`

test('readClaim() and the library of the machines understand each other', async (t) => {
  const folder = await temporaryFolder(t)
  const { makerFolder } = await makeSwtpmWithCertificate(folder)
  const tpm = await startSwtpm(folder)
  t.teardown(() => tpm.stop())
  const onMachine = (command: string) =>
    tpm.run('env', 'KIT_IDENTITY=identity', 'dash', '-ec', `${SHELL} ${command}`)
  await mkdir(join(folder, 'identity'))
  await onMachine('make_tpm_key')
  const claim: TpmClaim = {
    ek: await tpm.read('identity/ek.public'),
    key: await tpm.read('identity/key.public'),
    ekCertificate: await tpm.read('identity/ek.certificate'),
  }
  const request = requestOf(rsaKeyOf(decodeTpmPublic(claim.key)))
  const verifier = createTpmVerifier({ ...QUIET, ekCas: makerFolder })
  const verified = verifier.readClaim(claim, request)
  t.is(await verified.vouchedBy(), 'ek-cas')
  const { credential, secret } = verified.makeCredential()
  await tpm.write('credential', credential)
  await onMachine('tpm_secret credential secret')
  t.deepEqual(await tpm.read('secret'), Buffer.from(secret))
})

test('tellProblems() tells them before any machine asks', async (t) => {
  const folder = await temporaryFolder(t)
  const { warnings, log } = heard()
  const files = { ekList: join(folder, 'list'), ekCas: join(folder, 'makers') }
  await createTpmVerifier({ ...files, clock: systemClock, log }).tellProblems()
  t.is(warnings.length, 2)
  await createTpmVerifier(QUIET).tellProblems()
})
