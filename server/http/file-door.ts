// `/loaders/`, `/images/` and `/bundles/`: files, each found in an allow-list by its name.

import { KitError } from '#lib/errors.ts'
import { findMac } from '#lib/mac.ts'
import { LOADERS } from '#machine/loaders.ts'
import type { Bundles, EventLog, ImageFile, ImageStore, Images } from '#machine/ports.ts'

import type { ChunkPool } from './chunk-pool.ts'
import { clientAddress, type Exchange, requireMethod, sendText } from './exchange.ts'
import { sendFile } from './file-sender.ts'
import type { KernelWatch } from './kernel-watch.ts'

export interface FileDoor {
  readonly images: Images
  /** Where signed manifests come from. */
  readonly imageStore: Pick<ImageStore, 'manifest'>
  readonly bundles: Bundles
  readonly events: EventLog
  readonly kernels: KernelWatch
  readonly pool: ChunkPool
}

/** UEFI HTTP boot takes what it gets for a program by this type or by the name's `.efi` (UEFI 2.10 §24.7.2). */
const EFI_TYPE = 'application/efi'
const BYTES_TYPE = 'application/octet-stream'

export async function serveLoader(exchange: Exchange, name: string, door: FileDoor): Promise<void> {
  requireMethod(exchange, 'GET', 'HEAD')
  const path = Object.hasOwn(LOADERS, name) ? LOADERS[name] : undefined
  const file = path === undefined ? undefined : door.images.current()?.files.get(path)
  if (file === undefined)
    throw new KitError('not-found', 'Cannot send this loader: there is none of that name')
  const contentType = name.endsWith('.efi') ? EFI_TYPE : BYTES_TYPE
  if (!(await sendFile(exchange, { ...file, contentType }, door.pool))) return
  const address = clientAddress(exchange.request)
  await door.events.append({
    kind: 'loader-sent',
    message: `${name} sent over HTTP${address === undefined ? '' : ` to ${address}`}`,
    data: { loader: name, ...(address !== undefined && { address }) },
  })
}

export async function serveImage(exchange: Exchange, path: string, door: FileDoor): Promise<void> {
  requireMethod(exchange, 'GET', 'HEAD')
  const [version = '', ...rest] = path.split('/')
  const name = rest.join('/')
  if (name === 'manifest' || name === 'manifest.sig') return sendManifest(exchange, version, name, door)
  const file: ImageFile | undefined = door.images.find(version)?.files.get(name)
  if (file === undefined) throw new KitError('not-found', 'Cannot send this file: no image has it')
  const isWhole = await sendFile(exchange, { ...file, contentType: BYTES_TYPE }, door.pool)
  const mac = findMac(exchange.url.searchParams.get('mac') ?? '')
  if (isWhole && mac !== undefined) await door.kernels.sent(mac, version, name)
}

/** The store signs them anew from time to time, so they are no files with a digest of their own. */
function sendManifest({ response }: Exchange, version: string, name: string, { imageStore }: FileDoor): void {
  const manifest = imageStore.manifest(version)
  if (manifest === undefined)
    throw new KitError('not-found', 'Cannot send this manifest: no image of that version has one')
  sendText(response, name === 'manifest' ? manifest.text : manifest.signature)
}

export async function serveBundle(exchange: Exchange, name: string, door: FileDoor): Promise<void> {
  requireMethod(exchange, 'GET', 'HEAD')
  const digest = /^([0-9a-f]{64})\.tar$/.exec(name)?.[1]
  const bundle = digest === undefined ? undefined : await door.bundles.findBundle(digest)
  if (bundle === undefined) throw new KitError('not-found', 'Cannot send this bundle: it is not kept here')
  const { file, sizeBytes } = bundle
  await sendFile(
    exchange,
    { file, sizeBytes, sha256: bundle.digest, contentType: 'application/x-tar' },
    door.pool,
  )
}
