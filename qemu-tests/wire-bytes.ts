// How much goes over a machine's network cable, and how much a whole image would be.

import { stat } from 'node:fs/promises'
import { join } from 'node:path'

import type { Netns } from '#lab/netns.ts'
import type { Vm } from '#lab/vm.ts'

/** Bytes that went to the machine since it was plugged in, frames and all. */
export async function bytesTo(netns: Netns, vm: Vm): Promise<number> {
  const [link] = JSON.parse(await netns.run('ip', ['-json', '-stats', 'link', 'show', 'dev', vm.tap])) as [
    { readonly stats64: { readonly tx: { readonly bytes: number } } },
  ]
  return link.stats64.tx.bytes
}

/** What an installation fetches of a built image: all that lies in a slot. */
export async function imageBytes(folder: string): Promise<number> {
  const files = ['root.squashfs', 'root.verity', 'vmlinuz', 'initrd.img'].map((name) =>
    stat(join(folder, name)),
  )
  return (await Promise.all(files)).reduce((sum, { size }) => sum + size, 0)
}
