// Tests of the CA, of what it signs, and of who asks it to. openssl is the peer.

import { execFile } from 'node:child_process'
import { createHash, X509Certificate } from 'node:crypto'
import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'

import { systemClock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import { silentLog } from '#lib/log.ts'
import { parseMac } from '#lib/mac.ts'
import { testTls } from '#testing/tls-fixture.ts'

import { createAuthority } from './authority.ts'
import { openCa } from './ca.ts'
import { readCertificateRequest } from './request.ts'

const DAY_MS = 86_400_000
const MAC = parseMac('52:54:00:12:34:56')

async function makeFolder(t: ExecutionContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'kit-certs-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  return folder
}

/** Words are separated by blanks. */
async function openssl(folder: string, command: string): Promise<string> {
  const { stdout } = await promisify(execFile)('openssl', command.split(' '), { cwd: folder })
  return stdout
}

const open = (directory: string, clock = systemClock) => openCa({ directory, clock, log: silentLog })

test('openCa() makes a CA that openssl believes, once, with a key that only we can read', async (t) => {
  const folder = join(await makeFolder(t), 'keys')
  const made = await open(folder)
  t.deepEqual((await readdir(folder)).sort(), ['ca.key', 'ca.pem'])
  t.is((await stat(join(folder, 'ca.key'))).mode & 0o777, 0o600)
  t.is((await stat(folder)).mode & 0o777, 0o700)
  t.regex(await openssl(folder, 'verify -check_ss_sig -CAfile ca.pem ca.pem'), /ca.pem: OK/)
  const der = new X509Certificate(await readFile(join(folder, 'ca.pem'))).raw
  t.is(made.fingerprint, createHash('sha256').update(der).digest('hex'))
  const text = await openssl(folder, 'x509 -in ca.pem -noout -text')
  t.regex(text, /Public-Key: \(3072 bit\)/)
  t.regex(text, /Basic Constraints: critical\s+CA:TRUE, pathlen:0/)
  const { validFromDate, validToDate } = new X509Certificate(der)
  t.true(Math.abs(Date.now() - DAY_MS - validFromDate.getTime()) < 60_000)
  t.is(Math.round((validToDate.getTime() - validFromDate.getTime()) / DAY_MS), 3_653)

  const again = await open(folder)
  t.is(again.pem, made.pem)
  // A power cut between the two files, and a person who tidied up.
  await rm(join(folder, 'ca.pem'))
  t.is((await open(folder)).pem, made.pem)
  t.is(await readFile(join(folder, 'ca.pem'), 'utf8'), made.pem)
})

test('openCa() takes a CA that was made elsewhere, and signs so that openssl follows', async (t) => {
  const folder = await makeFolder(t)
  await openssl(
    folder,
    'req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 30 -subj /O=Äcme/CN=Own',
  )
  await chmod(join(folder, 'ca.key'), 0o600)
  const ca = await open(folder)
  await openssl(folder, 'req -new -newkey rsa:2048 -nodes -keyout m.key -out m.csr -subj /CN=x')
  const authority = createAuthority(ca, systemClock)
  const request = authority.readRequest(await readFile(join(folder, 'm.csr'), 'utf8'))
  await writeFile(join(folder, 'm.pem'), authority.issueForMachine(request, MAC).pem)
  t.regex(await openssl(folder, 'verify -purpose sslclient -CAfile ca.pem m.pem'), /m.pem: OK/)
})

test('openCa() says what is wrong with files it cannot use, and makes no other CA in their place', async (t) => {
  const folder = await makeFolder(t)
  const { pem } = await open(folder)
  const key = await readFile(join(folder, 'ca.key'), 'utf8')
  const other = (await testTls()).ca
  const otherKey = other.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
  const leaf = (await testTls()).source.material()
  await openssl(folder, 'ecparam -name prime256v1 -genkey -noout -out ec.pem')
  const ec = await readFile(join(folder, 'ec.pem'), 'utf8')
  const cases: [what: string, files: { key?: string; pem?: string }, message: RegExp][] = [
    ['a key cut short', { key: key.slice(0, 900), pem }, /the key is damaged/],
    ['an empty key', { key: '', pem }, /the key is damaged/],
    ['an EC key', { key: ec, pem }, /its key is not RSA/],
    ['no key', { pem }, /ca\.pem is there, its key is not/],
    ['a key alone', { key: otherKey }, /there is no ca\.pem, and no certificate beside the key/],
    ['a certificate cut short', { key, pem: pem.slice(0, 300) }, /the certificate in ca\.pem is damaged/],
    ['another certificate', { key, pem: other.pem }, /ca\.pem is another certificate than the one/],
    ['another key', { key: otherKey, pem }, /the certificate belongs to another key/],
    ['no CA', { key: leaf.key, pem: leaf.chain }, /not one of a CA that signed itself/],
  ]
  for (const [what, files, message] of cases) {
    const directory = await makeFolder(t)
    if (files.key !== undefined) await writeFile(join(directory, 'ca.key'), files.key, { mode: 0o600 })
    if (files.pem !== undefined) await writeFile(join(directory, 'ca.pem'), files.pem)
    const before = await readdir(directory)
    const error = await t.throwsAsync(open(directory), { instanceOf: KitError, message }, what)
    t.regex(error?.fix ?? '', /move both away: a new CA is made then/)
    t.false(error?.message.includes('BEGIN'), 'nothing of a key is shown')
    t.deepEqual(await readdir(directory), before)
  }
})

test('issueForMachine() signs for a client only, for seven days that began yesterday', async (t) => {
  const folder = await makeFolder(t)
  const { authority, ca } = await testTls()
  await writeFile(join(folder, 'ca.pem'), ca.pem)
  await openssl(folder, 'req -new -newkey rsa:2048 -nodes -keyout m.key -out m.csr -subj /CN=evil/O=root')
  const request = authority.readRequest(await readFile(join(folder, 'm.csr'), 'utf8'))
  const { pem, untilMs } = authority.issueForMachine(request, MAC)
  await writeFile(join(folder, 'm.pem'), pem)
  t.regex(await openssl(folder, 'verify -x509_strict -purpose sslclient -CAfile ca.pem m.pem'), /m.pem: OK/)
  await t.throwsAsync(openssl(folder, 'verify -purpose sslserver -CAfile ca.pem m.pem'), {
    message: /purpose/,
  })
  const certificate = new X509Certificate(pem)
  t.is(certificate.subject, 'CN=52:54:00:12:34:56', 'nothing of what the request calls itself')
  t.is(certificate.subjectAltName, undefined)
  t.is(certificate.validToDate.getTime(), untilMs)
  t.is(Math.round((untilMs - Date.now()) / DAY_MS), 7)
  t.true(Math.abs(Date.now() - DAY_MS - certificate.validFromDate.getTime()) < 60_000)
  const key = certificate.publicKey.export({ type: 'spki', format: 'der' })
  t.is(createHash('sha256').update(key).digest('hex'), request.keySha256)
  const serials = Array.from({ length: 50 }, () => {
    return new X509Certificate(authority.issueForMachine(request, MAC).pem).serialNumber
  })
  t.is(new Set(serials).size, 50)
  for (const serial of serials) t.regex(serial, /^[4-7][0-9A-F]{31}$/)
})

test('readRequest() takes what openssl makes, and names its key and its bytes as openssl does', async (t) => {
  const folder = await makeFolder(t)
  for (const options of [
    'rsa:2048 -sha256',
    'rsa:3072 -sha384 -addext subjectAltName=DNS:x',
    'rsa:4096 -sha512',
  ]) {
    await openssl(folder, `req -new -newkey ${options} -nodes -keyout k.pem -out r.pem -subj /CN=x`)
    const request = readCertificateRequest(await readFile(join(folder, 'r.pem'), 'utf8'))
    await openssl(folder, 'req -in r.pem -outform DER -out r.der')
    await openssl(folder, 'pkey -in k.pem -pubout -outform DER -out k.der')
    const hash = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')
    t.is(Buffer.from(request.digest).toString('hex'), hash(await readFile(join(folder, 'r.der'))))
    t.is(request.keySha256, hash(await readFile(join(folder, 'k.der'))))
    t.deepEqual(Buffer.from(request.publicKey), await readFile(join(folder, 'k.der')))
  }
})

test('readRequest() refuses other keys, other signatures and what is no request', async (t) => {
  const folder = await makeFolder(t)
  const make = async (options: string) => {
    await openssl(folder, `req -new -nodes -keyout k.pem -out r.pem -subj /CN=x -newkey ${options}`)
    return readFile(join(folder, 'r.pem'), 'utf8')
  }
  const good = await make('rsa:2048')
  await openssl(
    folder,
    'genpkey -algorithm rsa -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_keygen_pubexp:3 -out e3.pem',
  )
  await openssl(folder, 'req -new -key e3.pem -out e3.csr -subj /CN=x')
  await openssl(folder, 'genpkey -algorithm rsa -pkeyopt rsa_keygen_bits:1024 -out small.pem')
  await openssl(folder, 'req -new -key small.pem -out small.csr -subj /CN=x')
  const read = (name: string) => readFile(join(folder, name), 'utf8')
  const flip = (pem: string, place: number) => {
    const bytes = derOf(pem)
    bytes[place] = (bytes[place] ?? 0) ^ 1
    return pemOf(bytes)
  }
  const cases: [what: string, pem: string, message: RegExp][] = [
    ['elliptic curves', await make('ec -pkeyopt ec_paramgen_curve:P-256'), /its key is not RSA/],
    ['edwards curves', await make('ed25519'), /its key is not RSA/],
    ['a small key', await read('small.csr'), /its key has 1024 bits, not 2048 to 4096/],
    ['a large key', await make('rsa:5120'), /its key has 5120 bits/],
    ['a small exponent', await read('e3.csr'), /the exponent of its key is not 65537/],
    ['SHA-1', await make('rsa:2048 -sha1'), /something else than RSA with SHA-2/],
    ['PSS', await make('rsa:2048 -sigopt rsa_padding_mode:pss'), /something else than RSA with SHA-2/],
    ['a changed signature', flip(good, derOf(good).length - 1), /not signed by its own key/],
    ['a changed name', flip(good, 20), /Cannot read the certificate request/],
    ['bytes after it', pemOf(Buffer.concat([derOf(good), Buffer.of(0)])), /it is not DER/],
    ['two of them', good + good, /it is not PEM/],
    ['text around it', `x\n${good}`, /it is not PEM/],
    ['too much', good.replace('\n', '\n\n'.repeat(5_000)), /larger than 8192/],
    ['nothing', '', /it is not PEM/],
    ['a certificate', (await testTls()).ca.pem, /it is not PEM/],
  ]
  for (const [what, pem, message] of cases) {
    const error = t.throws(() => readCertificateRequest(pem), { instanceOf: KitError, message }, what)
    t.is(error?.code, 'invalid-input', what)
  }
})

test('readRequest() throws nothing but KitError `invalid-input`, on any bytes', async (t) => {
  const folder = await makeFolder(t)
  await openssl(folder, 'req -new -nodes -keyout k.pem -out r.pem -subj /CN=x -newkey rsa:2048')
  const der = derOf(await readFile(join(folder, 'r.pem'), 'utf8'))
  const change = fc.record({
    at: fc.nat(der.length - 1),
    bytes: fc.uint8Array({ minLength: 1, maxLength: 6 }),
  })
  const mutated = fc.array(change, { minLength: 1, maxLength: 5 }).map((changes) => {
    const bytes = Buffer.from(der)
    for (const { at, bytes: put } of changes) bytes.set(put.subarray(0, bytes.length - at), at)
    return bytes
  })
  const cut = fc.nat(der.length - 1).map((length) => der.subarray(0, length))
  const nested = fc
    .record({ depth: fc.integer({ min: 1, max: 1_500 }), tag: fc.constantFrom(0x30, 0xa0, 0x24, 0x23) })
    .map(({ depth, tag }) => nest(depth, tag))
  const anything = fc.uint8Array({ maxLength: 2_000 }).map((bytes) => Buffer.from(bytes))
  fc.assert(
    fc.property(fc.oneof(mutated, cut, nested, anything), (bytes) => {
      if (bytes.equals(der)) return
      const error = t.throws(() => readCertificateRequest(pemOf(bytes)), { instanceOf: KitError })
      t.is(error?.code, 'invalid-input')
    }),
    { numRuns: 3_000 },
  )
  fc.assert(
    fc.property(fc.string({ maxLength: 500, unit: 'binary' }), (text) => {
      t.throws(() => readCertificateRequest(text), { instanceOf: KitError })
    }),
  )
})

/** A tag in a tag in a tag, as far as 4 KiB hold. */
function nest(depth: number, tag: number): Buffer {
  let bytes = Buffer.alloc(0)
  for (let level = 0; level < depth && bytes.length < 4_096; level += 1) {
    const { length } = bytes
    const head = length < 0x80 ? [tag, length] : [tag, 0x82, length >> 8, length & 0xff]
    bytes = Buffer.concat([Buffer.from(head), bytes])
  }
  return bytes
}

function derOf(pem: string): Buffer {
  return Buffer.from(pem.replace(/-----[^-]+-----/g, ''), 'base64')
}

function pemOf(der: Uint8Array): string {
  const base64 = Buffer.from(der).toString('base64')
  return `-----BEGIN CERTIFICATE REQUEST-----\n${base64}\n-----END CERTIFICATE REQUEST-----\n`
}
