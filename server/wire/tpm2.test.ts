// Public areas, names and credentials: against a real TPM in software, and against noise.

import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'

import { DecodeError } from '#lib/bytes.ts'
import { MACHINE_KEY_ATTRIBUTES, makeSoftTpm, signingKey } from '#testing/soft-tpm.ts'
import { startSwtpm } from '#testing/swtpm.ts'

import {
  decodeTpmPublic,
  encodeTpmPublic,
  endorsementKeyOf,
  TPM_ALGORITHM,
  TPM_ATTRIBUTE,
  type TpmRsaPublic,
  tpmNameOf,
} from './tpm2.ts'
import { decodeCredentialFile, encodeCredentialFile, makeTpmCredential } from './tpm2-credential.ts'

const odd = (bytes: Uint8Array) => {
  const number = Buffer.from(bytes)
  number.writeUInt8(number.readUInt8(0) | 0x80, 0)
  number.writeUInt8(number.readUInt8(number.length - 1) | 1, number.length - 1)
  return new Uint8Array(number)
}
const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length })
const uint16 = fc.nat(0xffff)
const anyPublic: fc.Arbitrary<TpmRsaPublic> = fc.constantFrom(1024, 2048, 3072, 4096).chain((keyBits) =>
  fc.record(
    {
      attributes: fc.nat(0xffff_ffff),
      authPolicy: fc.oneof(fc.constant(new Uint8Array()), bytes(32)),
      symmetric: fc.record({ algorithm: fc.constant(TPM_ALGORITHM.aes), keyBits: uint16, mode: uint16 }),
      scheme: fc.oneof(
        fc.constant({ scheme: TPM_ALGORITHM.rsaes }),
        fc.record({
          scheme: fc.constantFrom(TPM_ALGORITHM.rsassa, TPM_ALGORITHM.rsapss, TPM_ALGORITHM.oaep),
          hash: uint16,
        }),
      ),
      keyBits: fc.constant(keyBits),
      exponent: fc.oneof(
        fc.constant(0),
        fc.integer({ min: 1, max: 0x7fff_ffff }).map((half) => half * 2 + 1),
      ),
      modulus: bytes(keyBits / 8).map(odd),
    },
    { requiredKeys: ['attributes', 'authPolicy', 'keyBits', 'exponent', 'modulus'] },
  ),
)

/** Views of one memory are not deep-equal to copies of another kind. */
const plain = (key: TpmRsaPublic) => ({
  ...key,
  authPolicy: [...key.authPolicy],
  modulus: [...key.modulus],
})

test('decodeTpmPublic() gives back any key that encodeTpmPublic() wrote', (t) => {
  fc.assert(
    fc.property(anyPublic, (key) => {
      const encoded = encodeTpmPublic(key)
      const decoded = decodeTpmPublic(encoded)
      t.deepEqual(plain(decoded), plain(key))
      t.deepEqual(Buffer.from(encodeTpmPublic(decoded)), Buffer.from(encoded))
    }),
    { numRuns: 300 },
  )
})

test('decodeTpmPublic() and decodeCredentialFile() throw nothing but DecodeError for arbitrary bytes', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 700 }), (noise) => {
      decodesOrRefuses(() => decodeTpmPublic(noise))
      decodesOrRefuses(() => decodeCredentialFile(noise))
    }),
    { numRuns: 3000 },
  )
  t.pass()
})

test('decodeTpmPublic() refuses damaged keys with DecodeError, and credentials can be made for those it takes', (t) => {
  const secret = randomBytes(32)
  const sound = Buffer.from(encodeTpmPublic(endorsementKeyOf(odd(randomBytes(256)))))
  let refused = 0
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(sound.length - 1), fc.nat(255)), { minLength: 1, maxLength: 3 }),
      fc.nat(3),
      (damage, cut) => {
        const damaged = Buffer.from(sound)
        for (const [at, value] of damage) damaged[at] = value
        const key = decodesOrRefuses(() => decodeTpmPublic(damaged.subarray(0, damaged.length - cut)))
        if (key === undefined) refused++
        else makeTpmCredential(key, tpmNameOf(key), secret)
      },
    ),
    { numRuns: 3000 },
  )
  t.log(`${refused} of 3000 refused`)
  t.true(refused > 1500)
})

const SOUND = signingKey(generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey)
const CHANGES: readonly [string, (area: Buffer) => Buffer, RegExp][] = [
  ['bytes behind it', (area) => Buffer.concat([area, Buffer.of(0)]), /^1 bytes behind the public area$/],
  ['a size beyond its end', (area) => area.subarray(0, -1), /^public area: \d+ bytes wanted/],
  ['an ECC key', (area) => patched(area, 2, 0x0023), /^type: 0x0023 instead of 0x0001$/],
  ['a name by SHA-1', (area) => patched(area, 4, 0x0004), /^nameAlg: 0x0004/],
  ['a symmetric algorithm it does not know', (area) => patched(area, 12, 0x0026), /^symmetric: 0x0026/],
  ['a scheme it does not know', (area) => patched(area, 14, 0x001a), /^scheme: 0x001a$/],
  ['a key of 512 bits', (area) => patched(area, 16, 512), /^keyBits: 512$/],
  ['an even exponent', (area) => patched(area, 20, 4), /^exponent: 4$/],
  ['a modulus of another length', (area) => patched(area, 16, 1024), /^modulus: 256 bytes for 1024 bits$/],
  ['an even modulus', (area) => patched(area, area.length - 2, 2), /^modulus: not an odd number/],
]

for (const [title, change, message] of CHANGES) {
  test(`decodeTpmPublic() refuses ${title}`, (t) => {
    const changed = change(Buffer.from(encodeTpmPublic(SOUND)))
    t.throws(() => decodeTpmPublic(changed), { instanceOf: DecodeError, message })
  })
}

function patched(area: Buffer, at: number, value: number): Buffer {
  area.writeUInt16BE(value, at)
  return area
}

test('decodeCredentialFile() refuses another magic, another version, bytes behind the end', (t) => {
  const file = Buffer.from(encodeCredentialFile({ idObject: Buffer.of(1, 2), encryptedSeed: Buffer.of(3) }))
  t.is(file.toString('hex'), 'badcc0de00000001000201020001'.concat('03'))
  t.like(decodeCredentialFile(file), { idObject: Buffer.of(1, 2), encryptedSeed: Buffer.of(3) })
  const refused = (changed: Buffer) =>
    t.throws(() => decodeCredentialFile(changed), { instanceOf: DecodeError })
  refused(patched(Buffer.from(file), 0, 0))
  refused(patched(Buffer.from(file), 6, 2))
  refused(Buffer.concat([file, Buffer.of(0)]))
  refused(file.subarray(0, -1))
})

test('makeTpmCredential() hides a secret from every other key and every other TPM', (t) => {
  const tpm = makeSoftTpm()
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const other = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const ek = decodeTpmPublic(tpm.ek)
  const secret = randomBytes(32)
  const name = tpmNameOf(decodeTpmPublic(tpm.publicOf(privateKey)))
  const file = encodeCredentialFile(makeTpmCredential(ek, name, secret))
  t.deepEqual(Buffer.from(tpm.activate(file, privateKey)), secret)
  t.throws(() => tpm.activate(file, other.privateKey), { message: /another key/ })
  t.throws(() => tpm.activate(file, privateKey, MACHINE_KEY_ATTRIBUTES | TPM_ATTRIBUTE.decrypt))
  t.throws(() => makeSoftTpm().activate(file, privateKey))
  t.throws(() => makeTpmCredential(ek, name, randomBytes(33)), { instanceOf: RangeError })
})

/** A real TPM with an endorsement key and a signing key made in it. */
async function realTpm(t: ExecutionContext) {
  const folder = await mkdtemp(join(tmpdir(), 'kit-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const tpm = await startSwtpm(folder)
  t.teardown(() => tpm.stop())
  await tpm.run('tpm2_createek', '-G', 'rsa', '-c', 'ek.ctx', '-u', 'ek.pub')
  await tpm.run('tpm2_createprimary', '-C', 'o', '-c', 'parent.ctx')
  return tpm
}

const KEY_ATTRIBUTES = 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign'

test('makeTpmCredential() is understood by a real TPM, which knows keys by the name of tpmNameOf()', async (t) => {
  const tpm = await realTpm(t)
  const parent = ['-C', 'parent.ctx', '-u', 'key.pub', '-r', 'key.priv']
  await tpm.run('tpm2_create', ...parent, '-G', 'rsa2048', '-a', KEY_ATTRIBUTES)
  await tpm.run('tpm2_load', ...parent, '-c', 'key.ctx', '-n', 'key.name')

  const ekBytes = await tpm.read('ek.pub')
  const ek = decodeTpmPublic(ekBytes)
  t.deepEqual(
    Buffer.from(encodeTpmPublic(endorsementKeyOf(ek.modulus))),
    ekBytes,
    'it is the default template',
  )
  const key = decodeTpmPublic(await tpm.read('key.pub'))
  t.is(key.attributes, MACHINE_KEY_ATTRIBUTES)
  t.deepEqual(Buffer.from(tpmNameOf(key)), await tpm.read('key.name'))

  for (const secret of [randomBytes(32), randomBytes(16)]) {
    await tpm.write('credential', encodeCredentialFile(makeTpmCredential(ek, tpmNameOf(key), secret)))
    await activate(tpm, 'key.ctx')
    t.deepEqual(await tpm.read('secret'), secret)
  }

  // The same for another key of that TPM, and for one that is called otherwise: no secret comes out.
  const another = ['-C', 'parent.ctx', '-u', 'other.pub', '-r', 'other.priv']
  await tpm.run('tpm2_create', ...another, '-G', 'rsa2048:rsassa-sha256', '-a', KEY_ATTRIBUTES)
  await tpm.run('tpm2_load', ...another, '-c', 'other.ctx')
  await t.throwsAsync(activate(tpm, 'other.ctx'), { message: /tpm2_activatecredential/ })
  const other = decodeTpmPublic(await tpm.read('other.pub'))
  t.deepEqual(other.scheme, { scheme: TPM_ALGORITHM.rsassa, hash: TPM_ALGORITHM.sha256 })
})

/** The endorsement key wants a policy session in which the (empty) secret of its hierarchy was shown. */
async function activate(tpm: Awaited<ReturnType<typeof realTpm>>, key: string): Promise<void> {
  await tpm.run('tpm2_startauthsession', '--policy-session', '-S', 'session')
  try {
    await tpm.run('tpm2_policysecret', '-S', 'session', '-c', 'e')
    const keys = ['-c', key, '-C', 'ek.ctx', '-P', 'session:session']
    await tpm.run('tpm2_activatecredential', ...keys, '-i', 'credential', '-o', 'secret')
  } finally {
    await tpm.run('tpm2_flushcontext', 'session')
  }
}

test('decodeCredentialFile() reads what tpm2_makecredential writes', async (t) => {
  const tpm = await realTpm(t)
  await tpm.write('plain', randomBytes(32))
  const name = `000b${'ab'.repeat(32)}`
  await tpm.run('tpm2_makecredential', '-u', 'ek.pub', '-s', 'plain', '-n', name, '-o', 'credential')
  const file = await tpm.read('credential')
  const credential = decodeCredentialFile(file)
  t.is(credential.encryptedSeed.length, 256)
  t.is(credential.idObject.length, 2 + 32 + 2 + 32)
  t.deepEqual(Buffer.from(encodeCredentialFile(credential)), file)
})

/** Undefined when refused as it should be. Throws anything else. */
function decodesOrRefuses<Value>(decode: () => Value): Value | undefined {
  try {
    return decode()
  } catch (error) {
    if (error instanceof DecodeError) return undefined
    throw error
  }
}
