// Three small images and two bundles for the simulator, each byte of them known.

import { execFileSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import type { Image, Known } from './state.ts'

const fileNames = ['root.squashfs', 'root.verity', 'vmlinuz', 'initrd.img'] as const
const rootBytes = 65536
const bootFileBytes = 10000
const loaderNames = [
  'systemd-bootx64.efi',
  'ipxe.efi',
  'ipxe.lkrn',
  'grub.cfg',
  'grub-boot.img',
  'grub-core.img',
]

/** Image 3 has the kernel of image 2, so that it is copied from the other slot. */
export function makeImages(folder: string): Known {
  const loaders = `${folder}/root/usr/lib/kit/boot`
  mkdirSync(loaders, { recursive: true })
  for (const name of loaderNames) writeFileSync(`${loaders}/${name}`, randomBytes(600))
  const kernels = [randomBytes(bootFileBytes), randomBytes(bootFileBytes)]
  const images = ['1', '2', '3'].map((version, index) =>
    makeImage(`${folder}/images/${version}`, version, kernels[Math.min(index, 1)] ?? Buffer.alloc(0)),
  )
  const bundles = ['1', '2'].map((digit) => makeBundle(`${folder}/bundles/${digit.repeat(64)}`, digit))
  return {
    images: new Map(images.map((image) => [image.rootHash, image])),
    bundles: new Map(bundles.map((files, index) => [`${index + 1}`.repeat(64), files])),
  }
}

function makeImage(folder: string, version: string, kernel: Buffer): Image {
  mkdirSync(folder, { recursive: true })
  writeFileSync(`${folder}/root.squashfs`, randomBytes(rootBytes))
  writeFileSync(`${folder}/vmlinuz`, kernel)
  writeFileSync(`${folder}/initrd.img`, randomBytes(bootFileBytes))
  const said = execFileSync('veritysetup', [
    'format',
    '--salt=-',
    `${folder}/root.squashfs`,
    `${folder}/root.verity`,
  ]).toString()
  const rootHash = /^Root hash:\s*(\S+)$/m.exec(said)?.[1] ?? ''
  const files = new Map(fileNames.map((name) => [name as string, readFileSync(`${folder}/${name}`)]))
  const lines = [...files].map(
    ([name, content]) =>
      `file ${name} ${content.length} ${createHash('sha256').update(content).digest('hex')}\n`,
  )
  writeFileSync(
    `${folder}/manifest`,
    `kateskit-image 1\nversion ${version}\narch amd64\nepoch 1\nsigned 1\nexpires 9999999999\nroot-hash ${rootHash}\n${lines.join('')}`,
  )
  return { version, rootHash, files }
}

function makeBundle(folder: string, digit: string): Map<string, Buffer> {
  const files = new Map(
    ['etc/one', 'etc/two'].map((path) => [path, Buffer.from(`${path} of bundle ${digit}\n`)]),
  )
  mkdirSync(`${folder}/etc`, { recursive: true })
  for (const [path, content] of files) writeFileSync(`${folder}/${path}`, content)
  return files
}
