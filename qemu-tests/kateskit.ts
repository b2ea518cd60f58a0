// The command line, as a person in front of a test's server uses it.

import { join } from 'node:path'

import { labControlSocket } from '#lab/lab-network.ts'
import { type CommandResult, runCommand } from '#lib/process.ts'

import { PROJECT, type TestLan } from './test-lan.ts'

export interface Person {
  /** What it prints. Throws with what it complains of. */
  does(...args: readonly string[]): Promise<string>
  /** What it complains of. Throws when it does not. */
  failsTo(...args: readonly string[]): Promise<string>
}

export function personAt({ network: { folder }, profiles }: Pick<TestLan, 'network' | 'profiles'>): Person {
  const run = (args: readonly string[]): Promise<CommandResult> =>
    runCommand(join(PROJECT, 'bin/kateskit'), args, {
      env: {
        ...process.env,
        KATESKIT_CONFIG: join(folder, 'config'),
        KATESKIT_HTTP_CONTROL_SOCKET: labControlSocket(folder),
        KATESKIT_KEYS_DIRECTORY: join(folder, 'keys'),
        KATESKIT_PROFILES_DIRECTORY: profiles,
      },
    })
  return {
    async does(...args) {
      const { exitCode, stdout, stderr } = await run(args)
      if (exitCode !== 0) throw new Error(`kateskit ${args.join(' ')}: ${stderr}`)
      return stdout
    },
    async failsTo(...args) {
      const { exitCode, stdout, stderr } = await run(args)
      if (exitCode === 0) throw new Error(`kateskit ${args.join(' ')} did not fail: ${stdout}`)
      return stderr
    },
  }
}
