// Who calls a route of the API, and whether the route is for them.

import { KitError } from '#lib/errors.ts'
import { TOKEN_ROLES, type TokenInfo, type TokenRole } from '#machine/access-ports.ts'

import type { ApiRoute } from './api-route.ts'

export interface Caller {
  /** `token <name> (<id>)`, `control socket`: what audit log and events call it. */
  readonly actor: string
  readonly role: TokenRole
  /** For what goes on after the answer has begun: a token may be revoked meanwhile. */
  mayGoOn(): Promise<boolean>
}

/** Whoever may open the file could read the database, too (docs/decisions/control-socket.md). */
export const CONTROL_SOCKET: Caller = {
  actor: 'control socket',
  role: 'admin',
  mayGoOn: async () => true,
}

export function actorOf({ name, id }: Pick<TokenInfo, 'name' | 'id'>): string {
  return `token ${name} (${id})`
}

/** What a route asks for: reading is for everybody, changing for operators, unless it says otherwise. */
export function neededRole({ method, needs }: Pick<ApiRoute, 'method' | 'needs'>): TokenRole {
  return needs ?? (method === 'get' ? 'viewer' : 'operator')
}

/** Throws KitError `forbidden`. */
export function requireRole({ actor, role }: Caller, needed: TokenRole): void {
  if (TOKEN_ROLES.indexOf(role) >= TOKEN_ROLES.indexOf(needed)) return
  throw new KitError('forbidden', `Cannot do this: it needs the role ${needed}, and ${actor} is ${role}`, {
    fix: `kateskit token new <name> --role ${needed}, on the server, makes a token that may`,
  })
}
