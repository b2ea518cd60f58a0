// Everything a fresh machine needs before a command can run, as a list of steps.

import { KitError } from '#lib/errors.ts'

import { installPackages, missingPackages } from './apt.ts'
import { ensureBaseImage } from './base-image.ts'
import { ensureKubernetes, type KubernetesChoice, TEST_KUBERNETES } from './kubernetes.ts'
import { type Purpose, packagesFor } from './packages.ts'
import type { Progress } from './progress.ts'

export interface SetupOptions {
  readonly purpose: Purpose
  readonly projectFolder: string
  readonly env: NodeJS.ProcessEnv
  readonly progress: Progress
  readonly signal: AbortSignal
  /** Effective user id; 0 is root. */
  readonly userId: number
  /** Of the image of this purpose, where the purpose has one: what the settings say. */
  readonly kubernetes?: KubernetesChoice
  /** Throws what else is known to be wrong: run when every package is there, before minutes go into the image. */
  readonly preflight?: () => Promise<void>
}

/** What `sudo` must be put before, by purpose. */
const COMMANDS: Readonly<Record<Purpose, string>> = {
  lab: 'npm start',
  serve: 'npm start -- --interface <name>',
  check: 'npm run check',
  fast: 'npm run test:fast',
  test: 'npm test',
}

const NEEDS_IMAGE: readonly Purpose[] = ['lab', 'serve', 'test']

const TESTS_KUBERNETES: readonly Purpose[] = ['fast', 'test']

/**
 * Changes nothing on a machine that has everything. Resolves with the base image's folder where the purpose needs one.
 * Throws KitError naming the command that helps.
 */
export async function prepare(options: SetupOptions): Promise<string | undefined> {
  const { purpose, signal, kubernetes } = options
  const needsRoot = purpose !== 'check'
  if (needsRoot) requireRoot(options, 'it makes networks, mounts and low ports')
  const isMade = kubernetes !== undefined && kubernetes.source !== 'none'
  const missing = await missingPackages(packagesFor(purpose, isMade))
  if (missing.length > 0) {
    requireRoot(options, `these Debian packages are missing: ${missing.join(' ')}`)
    await installPackages(missing, options)
  }
  signal.throwIfAborted()
  await options.preflight?.()
  if (TESTS_KUBERNETES.includes(purpose)) await ensureKubernetes({ ...options, choice: TEST_KUBERNETES })
  if (purpose === 'test') await ensureBaseImage({ ...options, kubernetes: TEST_KUBERNETES })
  return NEEDS_IMAGE.includes(purpose) ? ensureBaseImage(options) : undefined
}

function requireRoot({ userId, purpose }: SetupOptions, why: string): void {
  if (userId === 0) return
  const command = COMMANDS[purpose]
  throw new KitError('forbidden', `Cannot run ${command}: it must be run as root, for ${why}`, {
    fix: `sudo ${command}`,
  })
}
