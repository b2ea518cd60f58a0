// Who may use the API: holders of a token, and whoever may open the control socket.

import type { NextFunction, Request, RequestHandler, Response } from 'express'

import { KitError } from '#lib/errors.ts'
import type { TokenStore } from '#machine/access-ports.ts'

import type { LoginLimit } from './login-limit.ts'

const BEARER = /^Bearer +(?<token>[\w.~+/=-]+) *$/i // RFC 6750 §2.1

export function requireToken(tokens: TokenStore, limit: LoginLimit): RequestHandler {
  return async (request: Request, response: Response, next: NextFunction) => {
    const address = request.socket.remoteAddress ?? ''
    const token = BEARER.exec(request.headers.authorization ?? '')?.groups?.['token']
    if (token === undefined) throw unauthorized(response, 'it needs a token')
    const waitSeconds = limit.waitSeconds(address)
    if (waitSeconds > 0) {
      response.setHeader('Retry-After', waitSeconds)
      throw new KitError(
        'too-many-requests',
        `Cannot check this token: too many wrong ones, wait ${waitSeconds} seconds`,
      )
    }
    if ((await tokens.verify(token)) === undefined) {
      limit.failed(address)
      throw unauthorized(response, 'the token is not known here', ', error="invalid_token"')
    }
    next()
  }
}

function unauthorized(response: Response, reason: string, detail = ''): KitError {
  response.setHeader('WWW-Authenticate', `Bearer realm="kateskit"${detail}`) // RFC 6750 §3
  return new KitError('unauthorized', `Cannot use the API: ${reason}`, {
    fix: 'kateskit token new <name>, on the server; then Authorization: Bearer <token>',
  })
}
