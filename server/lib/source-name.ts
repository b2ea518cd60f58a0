// Where an import comes from: a folder or a file of this machine, or a URL; and how that is called.

import { createHash } from 'node:crypto'
import { realpath, stat } from 'node:fs/promises'
import { isAbsolute } from 'node:path'

import { KitError, systemErrorCode } from './errors.ts'

/** How one source is called, so that two imports of it are one and a second attempt finds what the first has left. */
export interface SourceName {
  readonly kind: 'folder' | 'tar' | 'web'
  /** Safe to show. */
  readonly shown: string
  readonly location: string
  /** The name of its folder in incoming/. */
  readonly key: string
}

/** Throws KitError, with `fix`, for what cannot be a source. Reads nothing of it yet. */
export async function nameSource(source: string, fix: string): Promise<SourceName> {
  const key = (location: string) => createHash('sha256').update(location).digest('hex').slice(0, 32)
  if (/^https?:\/\//i.test(source)) {
    const url = parseUrl(source)
    const shown = new URL(url)
    shown.username = ''
    shown.password = ''
    shown.search = '' // a signed link's secret
    return { kind: 'web', shown: shown.href, location: url.href, key: key(url.href) }
  }
  const cannot = (why: string) =>
    new KitError('invalid-input', `Cannot import ${JSON.stringify(source)}: ${why}`, { fix })
  if (!isAbsolute(source)) throw cannot('it is neither an absolute path nor an http(s) URL')
  try {
    const location = await realpath(source)
    const found = await stat(location)
    if (!found.isDirectory() && !found.isFile()) throw cannot('it is neither a folder nor a file')
    return { kind: found.isDirectory() ? 'folder' : 'tar', shown: source, location, key: key(location) }
  } catch (error) {
    const code = systemErrorCode(error)
    if (code === undefined || error instanceof KitError) throw error
    throw cannot(code === 'ENOENT' || code === 'ENOTDIR' ? 'there is no such file or folder' : code)
  }
}

function parseUrl(text: string): URL {
  const url = URL.parse(text)
  if (url === null) throw new KitError('invalid-input', `Cannot import ${JSON.stringify(text)}: it is no URL`)
  url.hash = ''
  return url
}
