// What a UDP socket that would not open is called, and what helps.

import { KitError, systemErrorCode } from '#lib/errors.ts'
import type { UdpOptions } from '#lib/udp.ts'

export function udpError(thrown: unknown, options: UdpOptions): Error {
  const { port, address, networkInterface } = options
  const intent = `Cannot listen on UDP port ${port}`
  switch (systemErrorCode(thrown)) {
    case 'EADDRINUSE':
      return new KitError('conflict', `${intent}: it is in use`, {
        fix: `ss -ulpn sport = :${port}`,
        cause: thrown,
      })
    case 'EACCES':
    case 'EPERM':
      return new KitError('forbidden', `${intent}: only root may`, { fix: 'sudo', cause: thrown })
    case 'ENODEV':
      return new KitError('not-found', `${intent}: there is no network interface ${networkInterface}`, {
        fix: 'ip -brief link',
        cause: thrown,
      })
    case 'EADDRNOTAVAIL':
      return new KitError('not-found', `${intent}: no network interface has the address ${address}`, {
        fix: 'ip -brief -4 address',
        cause: thrown,
      })
    default:
      return new KitError('internal', `${intent}: the system refused`, { cause: thrown })
  }
}
