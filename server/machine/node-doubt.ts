// Whether a machine that speaks of its part in the cluster is believed: this boot, this key, and enough shown for it.

import { KitError } from '#lib/errors.ts'
import type { Mac } from '#lib/mac.ts'

import type { Identity } from './identity.ts'
import type { Machine } from './machine.ts'
import type { MachineStore, Speaker } from './ports.ts'

export interface NodeDoubtOptions {
  readonly machines: Pick<MachineStore, 'findBoot'>
  readonly roster: { known(mac: Mac): Machine | undefined }
  /** By the sha256 of a key whose certificate our CA signed. */
  readonly identityOfKey: (keySha256: string) => Identity | undefined
  /** What a MAC is an alias of; itself when it is of nothing. */
  readonly primaryOf: (mac: Mac) => Mac
}

/** Undefined when there is none. */
export async function findNodeDoubt(
  what: string,
  { mac, boot, by }: { readonly mac: Mac; readonly boot: string; readonly by: Speaker },
  { machines, roster, identityOfKey, primaryOf }: NodeDoubtOptions,
): Promise<KitError | undefined> {
  const refuse = (code: KitError['code'], reason: string, fix?: string) =>
    new KitError(code, `Cannot ${what}: ${reason}`, fix === undefined ? {} : { fix })
  const identity = identityOfKey(by.keySha256)
  if (identity === undefined) return refuse('identity-needed', 'the key of the certificate is not known')
  if (identity.mac !== mac) return refuse('wrong-machine', `the key is that of ${identity.mac}`)
  if (identity.tier === 'mac-only') {
    const fix = `take the setting identity back to paired, then kateskit pair ${mac} <code on its console>`
    return refuse('identity-refused', 'only its MAC speaks for the machine, which anybody can copy', fix)
  }
  const named = await machines.findBoot(boot)
  if (named === undefined || primaryOf(named.mac) !== mac)
    return refuse('not-found', 'this boot was never offered to this machine')
  if (roster.known(mac)?.bootId !== boot)
    return refuse('stale-boot', 'it is for the boot that checked in last, and this is another')
  return named.keySha256 === by.keySha256 ? undefined : refuse('wrong-machine', 'this boot is of another key')
}
