// Opening the sockets the HTTP service listens on, and saying what is wrong when one cannot be opened.

import { once } from 'node:events'
import { chmod, lstat, mkdir, unlink } from 'node:fs/promises'
import type { Server } from 'node:http'
import { connect } from 'node:net'
import { dirname } from 'node:path'

import { KitError, systemErrorCode } from '#lib/errors.ts'
import type { TlsSource } from '#machine/tls-ports.ts'

export type ListenOn =
  /** HTTPS with `tls`, else plain HTTP. */
  | { readonly address: string; readonly port: number; readonly tls?: TlsSource }
  /** `isTrusted`: the rights of the file decide who is an admin, no token is wanted. */
  | { readonly socketFile: string; readonly isTrusted: boolean }

/** Resolves when the server listens. Throws KitError `conflict` for a port or socket in use, `forbidden`, `invalid-input`. */
export async function listen(server: Server, on: ListenOn): Promise<void> {
  if ('socketFile' in on) await listenOnFile(server, on.socketFile)
  else await bind(server, { host: on.address, port: on.port }, whereOf(on))
}

async function listenOnFile(server: Server, file: string): Promise<void> {
  await mkdir(dirname(file), { recursive: true, mode: 0o700 })
  await removeStale(file)
  await bind(server, { path: file }, { text: file, portSetting: 'http/port' })
  // Until here the usual umask 022 has kept others out: connecting takes the right to write (unix(7)).
  await chmod(file, 0o600)
}

/** A server that was killed leaves its socket file behind; one that lives answers on it. */
async function removeStale(file: string): Promise<void> {
  const stats = await lstat(file).catch(() => undefined)
  if (stats === undefined) return
  if (!stats.isSocket()) {
    throw new KitError('conflict', `Cannot listen on ${file}: it is a file, not a socket`, {
      fix: 'move it away, or set http/control-socket',
    })
  }
  if (await answers(file)) {
    throw new KitError('conflict', `Cannot listen on ${file}: another server answers there`, {
      fix: 'stop the other server, or set http/control-socket',
    })
  }
  await unlink(file)
}

async function answers(file: string): Promise<boolean> {
  const probe = connect(file)
  try {
    await once(probe, 'connect')
    return true
  } catch (error) {
    // EAGAIN, for one, is a live server with too much to do (unix(7)).
    return !['ECONNREFUSED', 'ENOENT'].includes(systemErrorCode(error) ?? '')
  } finally {
    probe.destroy()
  }
}

interface Where {
  readonly text: string
  /** The setting that moves it elsewhere. */
  readonly portSetting: 'http/port' | 'https/port'
}

function whereOf({ address, port, tls }: Extract<ListenOn, { address: string }>): Where {
  return { text: `${address}:${port}`, portSetting: tls === undefined ? 'http/port' : 'https/port' }
}

async function bind(
  server: Server,
  options: { host: string; port: number } | { path: string },
  where: Where,
): Promise<void> {
  try {
    server.listen(options)
    await once(server, 'listening') // rejects with the server's `error`
  } catch (cause) {
    throw listenError(cause, where)
  }
}

function listenError(cause: unknown, { text: where, portSetting }: Where): KitError {
  switch (systemErrorCode(cause)) {
    case 'EADDRINUSE':
      return new KitError('conflict', `Cannot listen on ${where}: it is in use`, {
        fix: `stop the other program, or set ${portSetting}`,
        cause,
      })
    case 'EACCES':
      return new KitError('forbidden', `Cannot listen on ${where}: permission denied`, {
        fix: `run as root, or set ${portSetting} to 1024 or more`,
        cause,
      })
    case 'EADDRNOTAVAIL':
      return new KitError('invalid-input', `Cannot listen on ${where}: this machine has no such address`, {
        fix: 'set http/address',
        cause,
      })
    default:
      return new KitError('internal', `Cannot listen on ${where}`, { cause })
  }
}
