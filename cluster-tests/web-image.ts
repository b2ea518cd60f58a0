// A container image that answers HTTP requests with what lies in /www: the static busybox and nothing else.

import { readFile } from 'node:fs/promises'
import { gzipSync } from 'node:zlib'

import * as tar from 'tar-stream'

import { digestOf, Layout, MANIFEST, writeTar } from '#testing/oci-archive.ts'

export const WEB_IMAGE = 'docker.io/kateskit/web:1'

/** Writes its archive into the folder. */
export async function writeWebImage(folder: string): Promise<void> {
  const pack = tar.pack()
  pack.entry({ name: 'bin/busybox', mode: 0o755 }, await readFile('/usr/bin/busybox'))
  for (const name of ['sh', 'httpd'])
    pack.entry({ name: `bin/${name}`, type: 'symlink', linkname: 'busybox' })
  pack.finalize()
  const chunks: Uint8Array[] = []
  for await (const chunk of pack as AsyncIterable<Uint8Array>) chunks.push(chunk)
  const plain = Buffer.concat(chunks)
  const layout = new Layout()
  const config = layout.json(
    {
      ...{ os: 'linux', architecture: process.arch === 'arm64' ? 'arm64' : 'amd64' },
      config: { Env: ['PATH=/bin'] },
      rootfs: { type: 'layers', diff_ids: [`sha256:${digestOf(plain)}`] },
    },
    'application/vnd.oci.image.config.v1+json',
  )
  const layer = layout.blob(gzipSync(plain), 'application/vnd.oci.image.layer.v1.tar+gzip')
  const image = layout.json({ schemaVersion: 2, mediaType: MANIFEST, config, layers: [layer] }, MANIFEST)
  await writeTar(folder, 'web.tar', layout.name(image, WEB_IMAGE).build())
}
