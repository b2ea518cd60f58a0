// What can be had over TFTP: an ordered list of routes, each of which knows its names. Nothing else exists.

import { readFile } from 'node:fs/promises'

import type { Ipv4 } from '#lib/ipv4.ts'
import { LOADERS } from '#machine/loaders.ts'
import type { Images } from '#machine/ports.ts'

/** A whole file. Shared by every transfer of it: nobody writes to it. */
export type TftpContent = Uint8Array

/** Undefined for a name that it does not know. Asked once per request; `name` is in the form of `normaliseName`. */
export type TftpLookup = (name: string, client: Ipv4) => Promise<TftpContent | undefined>

/** The first route that knows the name answers. */
export function firstRoute(routes: readonly TftpLookup[]): TftpLookup {
  return async (name, client) => {
    for (const route of routes) {
      const content = await route(name, client)
      if (content !== undefined) return content
    }
    return undefined
  }
}

/** The loaders of the current image, by the names of `#machine/loaders.ts`. Each is read once and kept until the image changes. */
export function loaderRoute(images: Pick<Images, 'current'>): TftpLookup {
  const kept = new Map<string, { readonly sha256: string; readonly content: Promise<TftpContent> }>()
  return async (name) => {
    const fileName = Object.hasOwn(LOADERS, name) ? LOADERS[name] : undefined
    const file = fileName === undefined ? undefined : images.current()?.files.get(fileName)
    if (file === undefined) return undefined
    const known = kept.get(name)
    if (known?.sha256 === file.sha256) return known.content
    const entry = { sha256: file.sha256, content: readFile(file.file) }
    kept.set(name, entry)
    entry.content.catch(() => {
      // What could not be read is tried anew at the next request.
      if (kept.get(name) === entry) kept.delete(name)
    })
    return entry.content
  }
}

/**
 * iPXE since 1.21 asks for this script before it does anything else, and waits for the answer.
 * `script` is called for each request; iPXE expands `${…}` in it.
 */
export function autoexecRoute(script: () => string): TftpLookup {
  return async (name) => (name === 'autoexec.ipxe' ? Buffer.from(script()) : undefined)
}
