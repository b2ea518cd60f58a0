// Where a machine that has proved who it is comes for its secret files.

import { KitError } from '#lib/errors.ts'
import type { Mac } from '#lib/mac.ts'

import type { AuditLog } from './access-ports.ts'
import type { Identity } from './identity.ts'
import type { Boot, Machine } from './machine.ts'
import type { EventLog, MachineStore, Profiles } from './ports.ts'
import { Repeats } from './repeats.ts'
import type { Secrets, SecretsDesk } from './secret-ports.ts'

export interface SecretsDeskOptions {
  readonly machines: Pick<MachineStore, 'findBoot'>
  readonly roster: { known(mac: Mac): Machine | undefined }
  readonly profiles: Pick<Profiles, 'profileFor'>
  readonly secrets: Pick<Secrets, 'read'>
  /** By the sha256 of a key whose certificate our CA signed. */
  readonly identityOfKey: (keySha256: string) => Identity | undefined
  readonly events: Pick<EventLog, 'append'>
  readonly audit: Pick<AuditLog, 'append'>
}

const ACTION = 'GET /v1/machines/:mac/secrets'

export function createSecretsDesk(options: SecretsDeskOptions): SecretsDesk {
  const { secrets, events, audit } = options
  /** A machine that is refused asks again and again. */
  const refusals = new Repeats()

  const note = async (mac: Mac, boot: string, refusal?: KitError) => {
    const outcome = refusal?.code ?? 'done'
    // Not the digest: a short secret could be tried out against it.
    await audit.append({
      actor: `machine ${mac}`,
      action: ACTION,
      target: mac,
      outcome,
      detail: `boot=${boot}`,
    })
    const kind = refusal === undefined ? 'secrets-sent' : 'secrets-refused'
    const message = refusal?.message ?? 'its secret files were handed out'
    await events.append({ kind, mac, message, data: { boot } })
  }

  return {
    async hand(mac, boot, by) {
      const refusal = findRefusal(mac, options, { named: await options.machines.findBoot(boot), boot, ...by })
      if (refusal !== undefined) {
        if (refusals.isNews(mac, refusal.message)) await note(mac, boot, refusal)
        throw refusal
      }
      refusals.forget(mac)
      const archive = await secrets.read(mac)
      if (archive === undefined)
        throw new KitError('not-found', `Cannot find secret files of ${mac}: it has none`)
      // Written down before the first byte leaves.
      await note(mac, boot)
      return archive
    },
  }
}

interface Asked {
  readonly boot: string
  readonly named: Boot | undefined
  readonly keySha256: string
}

function findRefusal(
  mac: Mac,
  { roster, profiles, identityOfKey }: SecretsDeskOptions,
  { boot, named, keySha256 }: Asked,
): KitError | undefined {
  const refuse = (code: KitError['code'], reason: string) =>
    new KitError(code, `Cannot hand out secrets: ${reason}`)
  const identity = identityOfKey(keySha256)
  if (identity === undefined) return refuse('identity-needed', 'the key of the certificate is not known')
  if (identity.mac !== mac) return refuse('wrong-machine', `the key is that of ${identity.mac}`)
  if (named === undefined) return refuse('not-found', 'this boot was never offered')
  if (roster.known(mac)?.bootId !== boot) {
    return refuse('stale-boot', 'they are for the boot that checked in last, and this is another')
  }
  if (named.keySha256 !== keySha256) return refuse('wrong-machine', 'this boot is of another key')
  const { role, broken } = profiles.profileFor(mac)
  return role === undefined || broken !== undefined
    ? refuse('conflict', broken ?? 'the machine has no role')
    : undefined
}
