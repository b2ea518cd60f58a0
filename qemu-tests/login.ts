// A key to log in with, and the way into a machine that has it in its overlay.

import { readFile } from 'node:fs/promises'

import type { Netns } from '#lab/netns.ts'
import type { Ipv4 } from '#lib/ipv4.ts'
import { commandOutput } from '#lib/process.ts'

import type { ProfileFiles } from './profile-files.ts'

/** Makes the key and the overlay files that let it in. */
export async function makeLogin(key: string): Promise<ProfileFiles> {
  await commandOutput('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', key])
  return {
    'defaults/root/root/.ssh/authorized_keys': await readFile(`${key}.pub`, 'utf8'),
    'defaults/root.attributes': '/root/.ssh directory mode=0700\n/root/.ssh/authorized_keys mode=0600\n',
  }
}

export interface LoginOptions {
  readonly netns: Netns
  readonly key: string
  readonly address: Ipv4 | undefined
}

/** The command's output. Patient: the first login on an emulated machine makes the host key first. */
export function runOnMachine({ netns, key, address }: LoginOptions, command: string): Promise<string> {
  return netns.run('ssh', [
    ...['-i', key, '-o', 'BatchMode=yes', '-o', 'LogLevel=ERROR', '-o', 'ConnectTimeout=120'],
    ...['-o', 'ServerAliveInterval=15', '-o', 'ServerAliveCountMax=8'],
    ...['-o', 'StrictHostKeyChecking=no', '-o', 'UserKnownHostsFile=/dev/null'],
    ...[`root@${address}`, command],
  ])
}
