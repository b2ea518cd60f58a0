// The keys of a cluster that exists already, out of a folder as kubeadm has it: `/etc/kubernetes/pki` of a control plane.

import { describeError, KitError } from '#lib/errors.ts'

import {
  type AuthorityPath,
  CLUSTER_AUTHORITIES,
  type ClusterPki,
  isSameKey,
  type PkiFiles,
  PRIVATE_FILES,
  PUBLIC_FILES,
  readAuthority,
  readPki,
  withServiceAccountPublicKey,
} from './cluster-authorities.ts'
import { isThere, readFiles } from './cluster-folder.ts'

/**
 * All of them, or `ca.crt` and `ca.key` alone: a CA of one's own for a cluster that is not there yet. Half of a cluster's
 * keys with new ones for the rest would break it. Undefined when there is no folder: it may go once they are taken.
 */
export async function readTakenFiles(folder: string, asOfMs: number): Promise<PkiFiles | undefined> {
  try {
    if (!(await isThere(folder))) return undefined
    const files = withServiceAccountPublicKey(await readFiles(folder, [...PUBLIC_FILES, ...PRIVATE_FILES]))
    const isOfOne = [...files.keys()].every((name) => name === 'ca.crt' || name === 'ca.key')
    const missing = [...PUBLIC_FILES, ...PRIVATE_FILES].filter((name) => !files.has(name))
    if (missing.length > 0 && !(isOfOne && files.size === 2)) throw new Error(`${missing.join(', ')} missing`)
    for (const { path } of CLUSTER_AUTHORITIES) if (files.has(`${path}.key`)) checkTaken(files, path, asOfMs)
    if (missing.length === 0) readPki(files)
    return files
  } catch (error) {
    throw new KitError(
      'unavailable',
      `Cannot take the keys of a cluster from ${folder}: ${describeError(error)}`,
      {
        fix: 'copy all of the folder pki/ of one of its control planes there, or only ca.crt and ca.key of a CA of your own',
        cause: error,
      },
    )
  }
}

function checkTaken(files: PkiFiles, path: AuthorityPath, asOfMs: number): void {
  const { certificate, untilMs } = readAuthority(files, path)
  if (untilMs <= asOfMs) throw new Error(`${path}.crt ended on ${certificate.validTo}`)
}

/** The first of the taken keys that is another one. A certificate of the same key may be a newer one. */
export function findConflict(kept: ClusterPki, taken: PkiFiles): string | undefined {
  const isOther = ({ path }: { readonly path: AuthorityPath }) =>
    taken.has(`${path}.key`) &&
    !isSameKey(readAuthority(taken, path).certificate.publicKey, kept.authorities[path].certificate.publicKey)
  const other = CLUSTER_AUTHORITIES.find(isOther)
  if (other !== undefined) return `${other.path}.crt`
  const publicKey = taken.get('sa.pub')?.trim()
  return publicKey === undefined || publicKey === kept.files.get('sa.pub')?.trim() ? undefined : 'sa.pub'
}
