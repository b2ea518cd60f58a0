// A private key and its certificate in one file, so that one rename replaces both and no half of a pair is ever left.

import { createPrivateKey, X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'

import { writeFileAtomically } from '#lib/atomic-file.ts'
import type { TlsMaterial } from '#machine/tls-ports.ts'

const BLOCK = /-----BEGIN ([A-Z ]+)-----[^-]+-----END \1-----\n?/g

/** Undefined for a file that is not there or is damaged: what was made by the server can be made again. */
export async function readKeyFile(file: string): Promise<TlsMaterial | undefined> {
  const text = await readFile(file, 'utf8').catch(() => '')
  const blocks = [...text.matchAll(BLOCK)].map(([pem, label = '']) => ({ pem, label }))
  const key = blocks.find(({ label }) => label.endsWith('PRIVATE KEY'))?.pem
  const chain = blocks.flatMap(({ pem, label }) => (label === 'CERTIFICATE' ? [pem] : [])).join('')
  if (key === undefined || chain === '') return undefined
  try {
    return new X509Certificate(chain).checkPrivateKey(createPrivateKey(key)) ? { key, chain } : undefined
  } catch {
    return undefined
  }
}

/** Nobody else may read it. */
export async function writeKeyFile(file: string, { key, chain }: TlsMaterial): Promise<void> {
  await writeFileAtomically(file, `${key.trimEnd()}\n${chain}`, 0o600)
}
