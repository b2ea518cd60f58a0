// Cutting by content: what is promised of chunks, on any bytes.

import { createHash } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'

import test from 'ava'
import fc from 'fast-check'

import { makeFolder, sha256 } from '#testing/image-folder.ts'

import { CHUNK_MAX_BYTES, CHUNK_MIN_BYTES, cutBlocks, listChunks } from './content-chunks.ts'

/** Bytes without a pattern, the same for the same seed. */
function noise(seed: number, length: number): Buffer {
  const key = createHash('shake256', { outputLength: length }).update(String(seed))
  return key.digest()
}

async function chunksOf(bytes: Buffer, blockBytes = 1024 * 1024): Promise<Buffer[]> {
  const blocks = Array.from({ length: Math.ceil(bytes.length / blockBytes) }, (_, index) =>
    bytes.subarray(index * blockBytes, (index + 1) * blockBytes),
  )
  const chunks: Buffer[] = []
  for await (const chunk of cutBlocks(blocks)) chunks.push(Buffer.from(chunk))
  return chunks
}

/** Noise, or something more like files: runs of one byte between noise. */
const content = fc
  .array(fc.record({ seed: fc.nat(), length: fc.nat(300_000), isRun: fc.boolean() }), {
    minLength: 0,
    maxLength: 4,
  })
  .map((parts) =>
    Buffer.concat(
      parts.map(({ seed, length, isRun }) =>
        isRun ? Buffer.alloc(length, seed % 256) : noise(seed, length),
      ),
    ),
  )

test('cutBlocks() gives back the input in chunks of the promised sizes', async (t) => {
  const property = fc.asyncProperty(
    content,
    fc.integer({ min: 1, max: 400_000 }),
    async (bytes, blockBytes) => {
      const chunks = await chunksOf(bytes, Math.max(blockBytes, Math.ceil(bytes.length / 50)))
      t.true(Buffer.concat(chunks).equals(bytes))
      t.true(chunks.every(({ length }) => length <= CHUNK_MAX_BYTES && length > 0))
      t.true(chunks.slice(0, -1).every(({ length }) => length >= CHUNK_MIN_BYTES))
    },
  )
  await fc.assert(property, { numRuns: 30 })
})

test('cutBlocks() cuts at the same places however the bytes arrive', async (t) => {
  const bytes = noise(1, 3_000_000)
  const lengths = (await chunksOf(bytes)).map(({ length }) => length)
  for (const blockBytes of [4096, 65_537, 3_000_000]) {
    t.deepEqual(
      (await chunksOf(bytes, blockBytes)).map(({ length }) => length),
      lengths,
    )
  }
  // Lists of images that machines have already are compared with new ones: where is cut may never change.
  t.is(sha256(lengths.join(' ')), '23c61b0e6128b9f8f2056d2ab1f41049d06b4f421d1b6463b4ef659ca5d95289')
})

test('cutBlocks() changes only the chunks around an insertion', async (t) => {
  const bytes = noise(2, 8_000_000)
  const before = new Set((await chunksOf(bytes)).map((chunk) => sha256(chunk)))
  const property = fc.asyncProperty(
    fc.nat(bytes.length),
    fc.integer({ min: 1, max: 5000 }),
    async (at, length) => {
      const changed = Buffer.concat([bytes.subarray(0, at), noise(3, length), bytes.subarray(at)])
      const news = (await chunksOf(changed)).filter((chunk) => !before.has(sha256(chunk)))
      // The chunk it falls into, and until a cut of the old ones is met again.
      t.true(news.length <= 8, `${news.length} at ${at}`)
      t.true(news.reduce((sum, chunk) => sum + chunk.length, 0) < bytes.length / 8)
    },
  )
  // How soon that is, is a matter of chance; the seed makes it always the same chance.
  await fc.assert(property, { numRuns: 15, seed: 1 })
})

test('cutBlocks() makes chunks of some 80 KB of ordinary bytes', async (t) => {
  const chunks = await chunksOf(noise(4, 20_000_000))
  const mean = 20_000_000 / chunks.length
  t.true(mean > 65_000 && mean < 95_000, String(mean))
})

test('listChunks() lists every chunk with its size and sha256', async (t) => {
  const file = join(makeFolder(t), 'root')
  const bytes = noise(5, 1_000_000)
  writeFileSync(file, bytes)
  let at = 0
  for (const line of (await listChunks(file)).trimEnd().split('\n')) {
    const [, length = '', digest] = /^(\d+) ([0-9a-f]{64})$/.exec(line) ?? []
    t.is(sha256(bytes.subarray(at, at + Number(length))), digest ?? '')
    at += Number(length)
  }
  t.is(at, bytes.length)
  writeFileSync(file, '')
  t.is(await listChunks(file), '')
})
