// `GET /v1/machines/<mac>/secrets`: the secret files of a machine that has proved who it is, and nobody else's.

import { KitError } from '#lib/errors.ts'
import type { Mac } from '#lib/mac.ts'
import type { SecretsDesk } from '#machine/secret-ports.ts'

import { type Exchange, sendBytes } from './exchange.ts'
import { BOOT_ID } from './machine-shapes.ts'

export interface SecretsDoor {
  readonly secretsDesk: SecretsDesk
}

export async function sendSecrets(exchange: Exchange, mac: Mac, { secretsDesk }: SecretsDoor): Promise<void> {
  const { transport, clientKey, response, url } = exchange
  // Whatever else lets a request through: never in the clear, never without a key, not even on the control socket.
  if (transport !== 'tls' || clientKey === undefined) {
    throw new KitError(
      'identity-needed',
      'Cannot hand out secrets: a machine must show its certificate, over HTTPS',
    )
  }
  const boot = BOOT_ID.safeParse(url.searchParams.get('boot'))
  if (!boot.success) {
    throw new KitError(
      'invalid-input',
      'Cannot tell which boot asks: boot is at most 64 printable characters',
    )
  }
  const { bytes } = await secretsDesk.hand(mac, boot.data, { keySha256: clientKey })
  sendBytes(response, bytes, 'application/x-tar')
}
