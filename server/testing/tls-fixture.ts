// A real CA with a certificate for 127.0.0.1, and calls over TLS, with a client's certificate or without.

import { mkdtempSync, rmSync } from 'node:fs'
import { type Agent, request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { createAuthority } from '#certs/authority.ts'
import { type Ca, openCa } from '#certs/ca.ts'
import { makeServerCertificate } from '#certs/server-certificate.ts'
import { systemClock } from '#lib/clock.ts'
import { silentLog } from '#lib/log.ts'
import type { Authority } from '#machine/identity-ports.ts'
import type { TlsSource } from '#machine/tls-ports.ts'

import type { Answer } from './http-fixture.ts'

export interface TestTls {
  readonly ca: Ca
  readonly authority: Authority
  readonly source: TlsSource
}

let made: Promise<TestTls> | undefined

/** One for all tests of a process: keys take long to make. */
export function testTls(): Promise<TestTls> {
  made ??= makeTestTls()
  return made
}

async function makeTestTls(): Promise<TestTls> {
  const directory = mkdtempSync(join(tmpdir(), 'kit-ca-'))
  try {
    const ca = await openCa({ directory, clock: systemClock, log: silentLog })
    const names = { hosts: ['localhost'], addresses: ['127.0.0.1'] }
    const material = await makeServerCertificate(ca, names, Date.now())
    const source: TlsSource = {
      caPem: ca.pem,
      material: () => material,
      materialFor: () => undefined,
      onChange: () => () => {},
    }
    return { ca, authority: createAuthority(ca, systemClock), source }
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

export interface TlsInit {
  readonly method?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string | Buffer
  /** PEM of what the server's certificate must come from. */
  readonly ca: string
  /** The client's own, PEM. */
  readonly key?: string
  readonly cert?: string
  /** For many calls: new connections of one address are limited. */
  readonly agent?: Agent
}

/** Like `call`, over a connection of its own unless there is an agent. */
export function callTls(url: string, { body, ...init }: TlsInit): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>()
  const sent = request(url, { agent: false, ...init }, async (response) => {
    try {
      const text = Buffer.concat(await response.toArray()).toString()
      const headers = new Headers()
      for (const [name, value] of Object.entries(response.headersDistinct))
        for (const one of value ?? []) headers.append(name, one)
      const isJson = headers.get('content-type') === 'application/json'
      resolve({
        status: response.statusCode ?? 0,
        headers,
        body: isJson && text !== '' ? JSON.parse(text) : text,
      })
    } catch (error) {
      reject(error)
    }
  })
  sent.on('error', reject)
  sent.end(body)
  return promise
}
