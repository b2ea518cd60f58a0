// One import, from its source to an image of the store: everything is verified before anything counts.

import { rm, stat, statfs } from 'node:fs/promises'
import { join } from 'node:path'

import type { Clock } from '#lib/clock.ts'
import { KitError, systemErrorCode } from '#lib/errors.ts'
import { readContent } from '#lib/file-bytes.ts'
import type { SourceName } from '#lib/source-name.ts'
import { type BuildFile, type BuildManifest, isSameBuild, parseBuild } from './build-manifest.ts'
import type { ImageRecord } from './image-record.ts'
import { type ImageSource, openSource } from './image-source.ts'
import { INITRD, makeServedFiles, takeBuiltInitrd } from './served-files.ts'
import type { SigningKey } from './signing-key.ts'
import type { StoreFolder } from './store-folder.ts'

export interface ImportOptions {
  readonly store: StoreFolder
  readonly key: SigningKey
  readonly clock: Clock
  readonly signal: AbortSignal
  readonly onProgress: (percent: number, text: string) => void
}

export interface Imported {
  readonly record: ImageRecord
  /** The very same image was here already. */
  readonly isKnown: boolean
}

/** Shares of the time: fetching and verifying, then what the store makes itself, then the disk. */
const FETCHED_PERCENT = 80
const MADE_PERCENT = 95

/** Left for what else the server writes. */
const SPARE_BYTES = 64 * 1024 * 1024

/** Throws KitError. An interrupted download is kept for the next attempt; of any other failure nothing is left. */
export async function importImage(name: SourceName, options: ImportOptions): Promise<Imported> {
  const { store, clock, signal } = options
  await store.dropLeftovers(clock.nowMs())
  const incoming = await store.openIncoming(name.key, clock.nowMs())
  const meter = createMeter(options)
  const source = openSource(name, { incoming, signal, clock, onRead: meter.onRead })
  try {
    signal.throwIfAborted()
    const imported = await bringIn(source, { ...options, name, incoming, meter })
    await rm(incoming, { recursive: true, force: true })
    return imported
  } catch (error) {
    const isInterrupted = signal.aborted || (error instanceof KitError && error.code === 'unavailable')
    if (!(source.canResume && isInterrupted)) await rm(incoming, { recursive: true, force: true })
    throw asImportError(error, { name, directory: store.directory, signal })
  }
}

interface Bringing extends ImportOptions {
  readonly name: SourceName
  readonly incoming: string
  readonly meter: Meter
}

async function bringIn(source: ImageSource, options: Bringing): Promise<Imported> {
  const { store, key, clock, incoming, meter, name, onProgress } = options
  const build = parseBuild(await source.readManifest(), `the manifest of ${name.shown}`)
  const known = store.find(build.version)
  if (known !== undefined && !isSameBuild(known.build, build)) throw versionExists(build.version)
  await checkSpace(build, options)
  meter.expect(build)
  for (const file of build.files) await bringFile(file, source, options)
  onProgress(FETCHED_PERCENT, 'cutting the image into chunks')
  const files = await makeServedFiles(build, incoming, { key, signal: options.signal })
  options.signal.throwIfAborted()
  onProgress(MADE_PERCENT, 'writing to the disk')
  const importedMs = known?.importedMs ?? clock.nowMs()
  const record = { build, files, importedMs, keyNumber: key.number }
  await store.add(record, incoming)
  return { record, isKnown: known !== undefined }
}

/** Leaves the file in the folder of the import under its sha256, seen to be whole: from the store, from an earlier attempt, from the source. */
async function bringFile(file: BuildFile, source: ImageSource, options: Bringing): Promise<void> {
  const { store, incoming, meter, name, signal } = options
  const target = join(incoming, file.sha256)
  meter.begin(file)
  if (
    (await isWhole(file, target)) ||
    (await store.lend(file, target)) ||
    (await lendInitrd(file, options))
  ) {
    meter.end(file)
    return
  }
  await source.fetch(file, target)
  const content = await readContent(target, { signal })
  if (content.sha256 !== file.sha256) {
    const digests = `its sha256 is ${content.sha256}, not ${file.sha256}`
    const sizes = `it has ${content.sizeBytes} bytes, not the ${file.sizeBytes} of its manifest`
    const why = content.sizeBytes === file.sizeBytes ? digests : sizes
    throw new KitError('invalid-input', `Cannot import ${name.shown}: ${file.name} is damaged: ${why}`, {
      fix: 'get it again, or make the image again',
    })
  }
  meter.end(file)
}

/** The store has every initrd with a key in it only; images that differ elsewhere often share it. */
async function lendInitrd(file: BuildFile, { store, incoming }: Bringing): Promise<boolean> {
  if (file.name !== INITRD) return false
  const isSame = ({ name, sha256 }: BuildFile) => name === INITRD && sha256 === file.sha256
  const lender = store.records.find(({ build }) => build.files.some(isSame))
  const served = lender?.files.find(({ name }) => name === INITRD)
  return served !== undefined && takeBuiltInitrd(file, store.fileOf(served.sha256), incoming)
}

async function isWhole({ sizeBytes, sha256 }: BuildFile, target: string): Promise<boolean> {
  const found = await stat(target).catch(() => undefined)
  return found?.size === sizeBytes && (await readContent(target)).sha256 === sha256
}

/** Hours into a download is late to notice. What is here already counts twice here, which errs on the safe side. */
async function checkSpace(build: BuildManifest, { store, name, incoming }: Bringing): Promise<void> {
  let neededBytes = SPARE_BYTES
  for (const { sha256, sizeBytes } of build.files) {
    const have = await Promise.all(
      [store.fileOf(sha256), join(incoming, sha256)].map((file) => stat(file).catch(() => undefined)),
    )
    if (!have.some((found) => found?.size === sizeBytes)) neededBytes += sizeBytes
  }
  const { bavail, bsize } = await statfs(store.directory)
  if (bavail * bsize >= neededBytes) return
  const figures = `${mebibytes(neededBytes)} are needed in ${store.directory}, ${mebibytes(bavail * bsize)} are free`
  throw noSpace(name, figures)
}

const mebibytes = (bytes: number) => `${Math.ceil(bytes / 1024 ** 2)} MiB`

interface Meter {
  readonly onRead: (bytes: number, ofBytes?: number) => void
  /** The manifest is known: from now on bytes count against its sum. */
  expect(build: BuildManifest): void
  begin(file: BuildFile): void
  end(file: BuildFile): void
}

/** Turns bytes into percent. */
function createMeter({ onProgress }: ImportOptions): Meter {
  let [doneBytes, allBytes, text] = [0, 0, 'reading it']
  const show = (bytes: number, ofBytes: number) =>
    onProgress(Math.floor((FETCHED_PERCENT * Math.min(bytes, ofBytes)) / Math.max(ofBytes, 1)), text)
  return {
    onRead(bytes, ofBytes) {
      if (allBytes > 0) show(doneBytes + bytes, allBytes)
      else if (ofBytes !== undefined) show(bytes, ofBytes)
    },
    expect({ files }) {
      allBytes = files.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
    },
    begin({ name }) {
      text = name
      show(doneBytes, allBytes)
    },
    end({ sizeBytes }) {
      doneBytes += sizeBytes
      show(doneBytes, allBytes)
    },
  }
}

function versionExists(version: string): KitError {
  return new KitError(
    'conflict',
    `Cannot import image ${version}: the store has another image of that version`,
    {
      fix: `give the new one another version (kateskit image build --version …), or remove the old one: kateskit image remove ${version}`,
    },
  )
}

function noSpace(name: SourceName, figures: string, cause?: unknown): KitError {
  return new KitError('no-space', `Cannot import ${name.shown}: ${figures}`, {
    fix: 'free some space, or remove an image that nobody uses: kateskit image list',
    cause,
  })
}

interface Surroundings {
  readonly name: SourceName
  readonly directory: string
  readonly signal: AbortSignal
}

function asImportError(error: unknown, { name, directory, signal }: Surroundings): KitError {
  if (signal.aborted) {
    return new KitError('unavailable', `Cannot go on importing ${name.shown}: the server was asked to stop`, {
      fix: 'start the import again when it runs: it goes on where it has stopped',
    })
  }
  if (error instanceof KitError) return error
  const code = systemErrorCode(error)
  if (code === 'ENOSPC' || code === 'EDQUOT') return noSpace(name, `the disk of ${directory} is full`, error)
  const why = code ?? 'something went wrong that nobody thought of'
  return new KitError(
    code === undefined ? 'internal' : 'unavailable',
    `Cannot import ${name.shown}: ${why}`,
    {
      cause: error,
    },
  )
}
