// Which server a command talks to: the one named, else the one that runs here.

import { access } from 'node:fs/promises'
import { join } from 'node:path'

import { loadConfig } from '#config'
import { labControlSocket } from '#lab/lab-network.ts'
import { KitError } from '#lib/errors.ts'
import { createJsonHttp, type Endpoint, type JsonHttp } from '#lib/json-http.ts'

import type { CliIo } from './cli-io.ts'
import { findTrust } from './server-trust.ts'

export interface ConnectOptions {
  /** `https://kit.home.arpa:8443`; KATESKIT_TOKEN goes with it. */
  readonly url?: string
  /** Fingerprint or PEM file of the CA that the server's certificate must come from. */
  readonly ca?: string
}

export function labFolder(projectFolder: string): string {
  return join(projectFolder, 'var/lab')
}

/** Throws KitError `unavailable` when nothing is named and nothing runs here. */
export async function connect(io: CliIo, options: ConnectOptions): Promise<JsonHttp> {
  return createJsonHttp(await findEndpoint(io, options))
}

async function findEndpoint(io: CliIo, { url, ca }: ConnectOptions): Promise<Endpoint> {
  const { KATESKIT_TOKEN: token, KATESKIT_CA: knownCa } = io.env
  if (url !== undefined) return namedEndpoint(url, { token, ca: ca ?? knownCa })
  // A server on a real LAN before a lab that runs beside it. A set variable is believed without a look.
  const configured = loadConfig({ env: io.env, cwd: io.projectFolder }).values['http/control-socket']
  if (io.env['KATESKIT_HTTP_CONTROL_SOCKET'] !== undefined) return { kind: 'socket', path: configured }
  for (const path of [configured, labControlSocket(labFolder(io.projectFolder))]) {
    if (await answers(path)) return { kind: 'socket', path }
  }
  throw new KitError('unavailable', 'Cannot find a running server on this machine', {
    fix: 'start one with npm start, or name one with --url https://<host>:8443 and KATESKIT_TOKEN',
  })
}

/** Nothing is sent before the server is known to be the one that was meant. */
async function namedEndpoint(
  url: string,
  { token, ca }: { token: string | undefined; ca: string | undefined },
): Promise<Endpoint> {
  if (/^http:/i.test(url)) {
    throw new KitError(
      'invalid-input',
      `Cannot use --url ${JSON.stringify(url)}: others could read the token`,
      {
        fix: 'write it as https://<host>:8443; on the server itself leave --url away',
      },
    )
  }
  if (!/^https:\/\/[^/@?#]+\/?$/i.test(url) || URL.parse(url) === null) {
    throw new KitError('invalid-input', `Cannot use --url ${JSON.stringify(url)}`, {
      fix: 'write it as https://<host>:8443',
    })
  }
  const caPem = await findTrust(url, ca === '' ? undefined : ca)
  return { kind: 'url', url, ...(token && { token }), ...(caPem !== undefined && { caPem }) }
}

/** A socket that is there and may not be opened counts: its error says more than "no server". */
async function answers(path: string): Promise<boolean> {
  try {
    await access(path)
    await createJsonHttp({ kind: 'socket', path }).request('GET', '/healthz')
    return true
  } catch (error) {
    return error instanceof KitError && error.code !== 'unavailable'
  }
}
