// The settings of a machine: one flat file each, in any layer of the profile tree. docs/profiles.md lists them.

import { findIpv4 } from '#lib/ipv4.ts'
import { didYouMean } from '#lib/nearest.ts'

import { findBytes } from './amounts.ts'
import { DISK_CONDITIONS_EXPECTED, findDiskConditions } from './disk-conditions.ts'
import { IDENTITY_RULES } from './identity.ts'
import {
  CNI_NAMES,
  findKubeletArguments,
  findLabels,
  findSpanSeconds,
  findTaints,
  NODE_ROLES,
} from './node-settings.ts'
import { findScriptProblem } from './script-text.ts'
import { SECRETS_KEPT } from './secret-ports.ts'
import { findUpdateWindow, UPDATE_WINDOW_EXPECTED } from './update-window.ts'

/** Lowest first: the value of a higher layer counts. */
export const LAYER_KINDS = ['defaults', 'channels', 'roles', 'machines'] as const
export type LayerKind = (typeof LAYER_KINDS)[number]

export interface SettingRule {
  readonly key: string
  readonly meaning: string
  /** The layers it may stand in; absent means all. */
  readonly layers?: readonly LayerKind[]
  readonly fallback?: string
  /** What is wrong with the value, or undefined. */
  readonly check: (value: string) => string | undefined
}

const NAME = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/

const name = (what: string) => (value: string) =>
  NAME.test(value) ? undefined : `${what} is lower-case letters, digits and dashes, at most 63`

const oneOf =
  (...choices: readonly string[]) =>
  (value: string) =>
    choices.includes(value) ? undefined : `one of ${choices.join(', ')}`

const matching = (pattern: RegExp, expected: string) => (value: string) =>
  pattern.test(value) ? undefined : expected

const found = (find: (value: string) => unknown, expected: string) => (value: string) =>
  find(value) === undefined ? expected : undefined

/** What all machines of a channel must agree on. */
const OF_CHANNELS = ['defaults', 'channels'] as const

export const SETTINGS: readonly SettingRule[] = [
  {
    key: 'role',
    meaning: 'which roles/<role> layer applies; without one nothing is ever written to the machine',
    layers: ['defaults', 'machines'], // a role cannot choose the role
    check: name('a role'),
  },
  {
    key: 'channel',
    meaning: 'which channels/<channel> layer applies',
    layers: ['defaults', 'roles', 'machines'],
    fallback: 'stable',
    check: name('a channel'),
  },
  {
    key: 'hostname',
    meaning: 'the host name of the running system; default: kit- and the last three bytes of the MAC',
    layers: ['machines'],
    check: name('a host name'),
  },
  {
    key: 'ip',
    meaning: 'the address that DHCP in server mode reserves for the machine',
    layers: ['machines'],
    check: (value) => (findIpv4(value) ? undefined : 'an IPv4 address'),
  },
  {
    key: 'identity',
    meaning: 'what it must show to be believed that it is this machine ([security.md](security.md))',
    fallback: 'paired',
    check: oneOf(...IDENTITY_RULES),
  },
  {
    key: 'boot',
    meaning:
      'what a machine with a role does at its next netboot: be installed, unless it is; run in memory; go on to its disk; wait',
    fallback: 'install',
    check: oneOf('install', 'live', 'local-disk', 'hold'),
  },
  {
    key: 'disk',
    meaning: 'which disk it is installed on, by conditions that must all hold ([disk.md](disk.md))',
    check: found(findDiskConditions, DISK_CONDITIONS_EXPECTED),
  },
  {
    key: 'wipe',
    meaning: 'whether a disk with something else on it may be overwritten',
    fallback: 'if-ours-or-blank',
    check: oneOf('if-ours-or-blank', 'force'),
  },
  {
    key: 'netboot-means',
    meaning:
      'what a netboot of an installed machine means; a powerwash only once it has run since the last one',
    fallback: 'local-disk',
    check: oneOf('local-disk', 'powerwash'),
  },
  {
    key: 'powerwash',
    meaning: 'any word; each new one asks for one powerwash that keeps persistence',
    layers: ['machines'],
    check: matching(/^[\x21-\x7e]{1,64}$/, 'one word of at most 64 characters'),
  },
  {
    key: 'update-window',
    meaning: 'when it may restart for an update; in the time zone of the server unless one is named',
    fallback: 'always',
    check: found(findUpdateWindow, UPDATE_WINDOW_EXPECTED),
  },
  {
    key: 'update-rate',
    meaning:
      'how many bytes a second it may load for an update (K, M, G: powers of 1000); 0 is without a limit',
    fallback: '0',
    check: found(findBytes, 'bytes a second such as 512K or 20M, or 0'),
  },
  {
    key: 'update-at-once',
    meaning: 'how many machines of the channel may restart at a time, or what part of them, at least one',
    layers: OF_CHANNELS,
    fallback: '1',
    check: matching(/^(?:[1-9]\d{0,3}|(?:100|[1-9]\d?)%)$/, 'a number from 1 to 9999, or 1% to 100%'),
  },
  {
    key: 'update-halt-after',
    meaning: 'after how many failed machines an update of the channel stops',
    layers: OF_CHANNELS,
    fallback: '1',
    check: matching(/^[1-9]\d{0,3}$/, 'a number from 1 to 9999'),
  },
  {
    key: 'canary',
    meaning: 'whether it gets an update before the others of its channel',
    layers: ['roles', 'machines'],
    fallback: 'no',
    check: oneOf('yes', 'no'),
  },
  {
    key: 'secrets-kept',
    meaning:
      'whether a copy of its secret files is kept on persistence, for a start without the server, or they are in memory only',
    fallback: 'persist',
    check: oneOf(...SECRETS_KEPT),
  },
  {
    key: 'kubernetes',
    meaning:
      'its part in the cluster ([kubernetes.md](kubernetes.md)); default: its role, when that is called so, else none',
    check: oneOf(...NODE_ROLES),
  },
  {
    key: 'cni',
    meaning: 'which network plugin it is given',
    fallback: 'bridge',
    check: oneOf(...CNI_NAMES),
  },
  {
    key: 'node-labels',
    meaning: 'labels of its node, separated by blanks',
    check: found(findLabels, 'key=value, separated by blanks, no key twice'),
  },
  {
    key: 'node-taints',
    meaning: 'taints of its node, separated by blanks',
    check: found(findTaints, 'key=value:NoSchedule, :PreferNoSchedule or :NoExecute, separated by blanks'),
  },
  {
    key: 'kubelet-arguments',
    meaning: "flags of its kubelet such as max-pods=50, one a line; not those of kubeadm's own",
    check: found(
      findKubeletArguments,
      'name=value, one a line, no name twice, none that kubeadm gives itself',
    ),
  },
  {
    key: 'registry-mirror',
    meaning: "whether container images come through this server's registry first",
    fallback: 'no',
    check: oneOf('yes', 'no'),
  },
  {
    key: 'etcd-snapshot-every',
    meaning: 'how often a control plane sends a snapshot of etcd; 0 is never',
    fallback: '1h',
    check: found(findSpanSeconds, 'a span such as 90s, 30m, 1h or 2d, at least 60s, or 0'),
  },
  {
    key: 'console',
    meaning: 'kernel consoles, the last one is /dev/console; separated by blanks',
    fallback: 'tty0 ttyS0,115200n8',
    check: (value) =>
      /^tty[A-Za-z0-9]+(?:,[0-9a-z]+)?(?: tty[A-Za-z0-9]+(?:,[0-9a-z]+)?)*$/.test(value)
        ? undefined
        : 'names such as tty0 or ttyS0,115200n8, separated by blanks',
  },
  {
    key: 'kernel-arguments',
    meaning: 'added to the kernel command line as they are; public, so no secrets',
    check: checkKernelArguments,
  },
]

/** The words reach the kernel through an iPXE script, which must not take one for its own. */
function checkKernelArguments(value: string): string | undefined {
  if (!/^[\x21-\x7e]+(?: [\x21-\x7e]+)*$/.test(value)) {
    return 'printable words separated by single blanks, on one line'
  }
  const problem = findScriptProblem(value)
  return problem && `words that iPXE passes on, but it has ${problem}`
}

/** The folder under channels/ that belongs to a channel: what is about to become stable is tried with stable's files. */
export function channelFolder(channel: string): string {
  return channel === 'rc' ? 'stable' : channel
}

/** What is wrong with a folder under channels/, or undefined. */
export function checkChannelFolder(folder: string): string | undefined {
  if (channelFolder(folder) === folder) return checkSetting('machines', 'channel', folder)
  return `Cannot use channels/${folder}: machines on ${folder} use channels/${channelFolder(folder)}, so that they try what ${channelFolder(folder)} will be`
}

export function findSettingRule(key: string): SettingRule | undefined {
  return SETTINGS.find((rule) => rule.key === key)
}

/** What is wrong with a setting file, or undefined. Empty text is always right: it takes lower layers' value back. */
export function checkSetting(kind: LayerKind, key: string, text: string): string | undefined {
  const rule = findSettingRule(key)
  if (rule === undefined) {
    const known = SETTINGS.map((setting) => setting.key)
    return `Cannot use ${key}: there is no such setting${didYouMean(key, known)}`
  }
  if (rule.layers && !rule.layers.includes(kind)) {
    return `Cannot use ${key} in ${kind}/: it belongs in ${rule.layers.join('/ or ')}/`
  }
  const expected = text === '' ? undefined : rule.check(text)
  if (expected === undefined) return undefined
  const shown = JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text)
  return `Cannot use ${key}: ${shown}; expected: ${expected}`
}
