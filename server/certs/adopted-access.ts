// The kubeconfig of an adopted cluster, beside the server's other keys; encrypted when there is a passphrase for those.

import { readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'

import { writeFileAtomically } from '#lib/atomic-file.ts'
import { describeError, KitError, systemErrorCode } from '#lib/errors.ts'
import type { AdoptedAccess } from '#machine/cluster-link.ts'

import { openWithPassphrase, readPassphrase, sealWithPassphrase } from './cluster-passphrase.ts'

export interface AdoptedAccessOptions {
  /** Setting keys/directory. */
  readonly directory: string
  /** Setting cluster/passphrase-file. */
  readonly passphraseFile?: string
}

const SEALED = '-----BEGIN AGE ENCRYPTED FILE-----'

/** Everything throws KitError `unavailable` for a file that cannot be used. */
export function createAdoptedAccess({ directory, passphraseFile }: AdoptedAccessOptions): AdoptedAccess {
  const file = join(directory, 'adopted-cluster.kubeconfig')
  const refuse = (what: string) => (cause: unknown) => {
    throw new KitError('unavailable', `Cannot ${what} ${file}: ${describeError(cause)}`, { cause })
  }
  const read = async () => {
    const text = await readFile(file, 'utf8').catch((error: unknown) => {
      if (systemErrorCode(error) === 'ENOENT') return undefined
      throw error
    })
    if (text === undefined || !text.startsWith(SEALED)) return text
    if (passphraseFile === undefined)
      throw new Error('it is encrypted, and cluster/passphrase-file is not set')
    return openWithPassphrase(text, await readPassphrase(passphraseFile))
  }
  const write = async (kubeconfig: string | undefined) => {
    if (kubeconfig === undefined) return rm(file, { force: true })
    const sealed =
      passphraseFile === undefined
        ? kubeconfig
        : await sealWithPassphrase(kubeconfig, await readPassphrase(passphraseFile))
    await writeFileAtomically(file, sealed, 0o600)
  }
  return {
    read: () => read().catch(refuse('read')),
    write: (kubeconfig) => write(kubeconfig).catch(refuse('write')),
  }
}
