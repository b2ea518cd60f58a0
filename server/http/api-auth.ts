// Where the tokens of the API are looked at.

import type { IncomingMessage, ServerResponse } from 'node:http'

import type { Clock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import type { TokenStore } from '#machine/access-ports.ts'
import { findTokenText } from '#machine/token-text.ts'

import type { ApiAudit } from './api-audit.ts'
import { actorOf, type Caller } from './caller.ts'
import { LoginLimit } from './login-limit.ts'

const BEARER = /^Bearer +(?<token>[\w.~+/=-]+) *$/i // RFC 6750 §2.1

export interface GateOptions {
  readonly tokens: TokenStore
  readonly audit: ApiAudit
  readonly clock: Clock
}

export class Gate {
  readonly #tokens: TokenStore
  readonly #audit: ApiAudit
  readonly #byAddress: LoginLimit
  /** Of tries at one token, wherever they come from. Never in the way of the right one: nobody locks others out. */
  readonly #byToken: LoginLimit

  constructor({ tokens, audit, clock }: GateOptions) {
    this.#tokens = tokens
    this.#audit = audit
    this.#byAddress = new LoginLimit(clock)
    this.#byToken = new LoginLimit(clock)
  }

  /** Throws KitError `unauthorized` or `too-many-requests`, with the headers that belong to them. */
  async admit(request: IncomingMessage, response: ServerResponse): Promise<Caller> {
    const address = addressOf(request)
    const token = bearerOf(request)
    if (token === undefined) {
      this.#audit.loginRefused(address, { outcome: 'unauthorized', detail: 'no token' })
      throw unauthorized(response, 'it needs a token')
    }
    const tokenId = findTokenText(token)?.id ?? ''
    this.#requirePatience(response, { address, tokenId, waitSeconds: this.#byAddress.waitSeconds(address) })
    const info = await this.#tokens.verify(token)
    if (info !== undefined) {
      return {
        actor: actorOf(info),
        role: info.role,
        mayGoOn: async () => (await this.#tokens.verify(token)) !== undefined,
      }
    }
    this.#byAddress.failed(address)
    if (tokenId !== '') {
      this.#requirePatience(response, { address, tokenId, waitSeconds: this.#byToken.waitSeconds(tokenId) })
      this.#byToken.failed(tokenId)
    }
    this.#audit.loginRefused(address, { tokenId, outcome: 'unauthorized', detail: 'a wrong token' })
    throw unauthorized(response, 'the token is not known here, or not any more', ', error="invalid_token"')
  }

  /**
   * The error for a request over plain HTTP, the same whatever its token: nobody learns there which tokens are real.
   * A real one has travelled in the clear, and everybody who may read the history is told so.
   */
  async refusePlain(request: IncomingMessage, httpsUrl: string): Promise<KitError> {
    const token = bearerOf(request)
    if (token !== undefined && findTokenText(token) !== undefined) {
      const info = await this.#tokens.verify(token)
      if (info !== undefined) this.#audit.tokenExposed(info, addressOf(request))
    }
    const burnt =
      token === undefined ? '' : '; the token in this request could be read by others on the way: revoke it'
    return new KitError('forbidden', `Cannot use the API over plain HTTP${burnt}`, {
      fix: `use ${httpsUrl}/api/v1`,
    })
  }

  #requirePatience(
    response: ServerResponse,
    { address, tokenId, waitSeconds }: { address: string; tokenId: string; waitSeconds: number },
  ): void {
    if (waitSeconds <= 0) return
    this.#audit.loginRefused(address, { tokenId, outcome: 'too-many-requests', detail: 'many wrong tokens' })
    response.setHeader('Retry-After', waitSeconds)
    throw new KitError(
      'too-many-requests',
      `Cannot check this token: too many wrong ones, wait ${waitSeconds} seconds`,
    )
  }
}

function bearerOf({ headers }: IncomingMessage): string | undefined {
  return BEARER.exec(headers.authorization ?? '')?.groups?.['token']
}

function addressOf({ socket }: IncomingMessage): string {
  return socket.remoteAddress?.replace(/^::ffff:/, '') ?? 'a unix socket'
}

function unauthorized(response: ServerResponse, reason: string, detail = ''): KitError {
  response.setHeader('WWW-Authenticate', `Bearer realm="kateskit"${detail}`) // RFC 6750 §3
  return new KitError('unauthorized', `Cannot use the API: ${reason}`, {
    fix: 'kateskit token new <name>, on the server, makes one: KATESKIT_TOKEN, or Authorization: Bearer <token>',
  })
}
