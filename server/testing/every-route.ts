// Every path the server answers, made from its own tables: what is added there is attacked without a word here.

import { API_ROUTES } from '#http/api-routes.ts'
import { ROUTES as FRONT_ROUTES } from '#http/front-door.ts'
import { ENDPOINTS as MACHINE_ENDPOINTS } from '#http/machine-door.ts'
import type { Mac } from '#lib/mac.ts'
import { macToPath } from '#lib/mac.ts'

import { IMAGE } from './attacked-lan.ts'

export const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'TRACE', 'PROPFIND']

export interface Names {
  readonly macs: readonly Mac[]
  readonly boot: string
  readonly bundle: string
  readonly tokenId: string
}

/** With names that there are, so that an answer could be had. */
export function everyPath({ macs, boot, bundle, tokenId }: Names): readonly string[] {
  const [first] = macs
  const holes: Readonly<Record<string, string>> = {
    mac: first ?? '',
    version: IMAGE,
    channel: 'stable',
    holder: 'fleetlock:one',
    id: tokenId,
    ekSha256: '0'.repeat(64),
  }
  const rests = [
    '',
    'x',
    ...macs.flatMap((mac) => [
      `${macToPath(mac)}.ipxe?platform=efi&buildarch=x86_64&want=powerwash`,
      `${mac}/`,
    ]),
    ...['autoexec.ipxe', 'snponly.efi', `${bundle}.tar`, 'pre-reboot', 'steady-state'],
    ...['vmlinuz', 'root.squashfs', 'manifest', 'manifest.sig', 'manifest.json'].map(
      (name) => `${IMAGE}/${name}`,
    ),
  ]
  const machine = macs.flatMap((mac) =>
    [...Object.keys(MACHINE_ENDPOINTS), 'identity', 'identity/x'].map(
      (name) => `/v1/machines/${macToPath(mac)}/${name}?boot=${boot}`,
    ),
  )
  const api = API_ROUTES.map(({ path }) => {
    return `/api/v1${path.replace(/:(\w+)/g, (_all, hole: string) => encodeURIComponent(holes[hole] ?? 'x'))}`
  })
  return [
    ...FRONT_ROUTES.flatMap(({ prefix }) => rests.map((rest) => prefix + rest)),
    ...machine,
    ...new Set(api),
  ]
}

/** Ways out of a folder, and ways round a check of a path. For raw request lines: some are no URLs. */
export function walks({ macs: [mac], boot }: Names): readonly string[] {
  const files = ['etc/passwd', 'keys/ca.key', 'state/kateskit.db', 'profiles/machines', 'server.log']
  const ups = [
    '../',
    '%2e%2e/',
    '..%2f',
    '%2e%2e%2f',
    '..\\',
    '%5c..%5c',
    '....//',
    '%252e%252e%252f',
    '.%00./',
  ]
  const climbing = FRONT_ROUTES.flatMap(({ prefix }) =>
    ups.flatMap((up) => files.map((file) => `${prefix}${up.repeat(6)}${file}`)),
  )
  const secrets = `v1/machines/${mac}/secrets?boot=${boot}`
  const detours = ['api/v1/tokens', 'api/v1/audit', secrets].flatMap((path) => [
    `//${path}`,
    `/./${path}`,
    `/boot/../${path}`,
    `/healthz/../${path}`,
    `/%2e/${path}`,
    `/${path.replace('v1', 'V1')}`,
    `/${path.replace('/v1', '/%76%31')}`,
    `/${path};x=y`,
    `/${path}%00`,
    `/${path}\u0000.ipxe`,
    `http://10.77.0.1/${path}`,
    `https://127.0.0.1/${path}`,
    `http://kit@localhost/${path}`,
    `file:///${path}`,
    `*/${path}`,
    `/loaders/http://127.0.0.1:8080/${path}`,
  ])
  const odd = [
    '*',
    '',
    '?',
    '#',
    '%',
    '/%zz',
    '/images/%00',
    `/images/${'a'.repeat(7000)}`,
    `/${'a/'.repeat(3500)}`,
  ]
  return [...climbing, ...detours, ...odd]
}
