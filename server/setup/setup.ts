// Everything a fresh machine needs before a command can run, as a list of steps.

import { KitError } from '#lib/errors.ts'

import { installPackages, missingPackages } from './apt.ts'
import { ensureBaseImage } from './base-image.ts'
import { ensureKubernetes, type KubernetesBuild, TEST_KUBERNETES } from './kubernetes.ts'
import { type KubernetesSettings, prepareKubernetes } from './kubernetes-source.ts'
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
  /** For the image of `lab` and `serve`; absent: none. Tests have an image without. */
  readonly kubernetes?: KubernetesSettings
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

export interface Prepared {
  /** The folder of the base image, where the purpose needs one. */
  readonly image?: string
  /** What is in that image. */
  readonly kubernetes?: KubernetesBuild
}

/** Changes nothing on a machine that has everything. Throws KitError naming the command that helps. */
export async function prepare(options: SetupOptions): Promise<Prepared> {
  const { purpose, signal, kubernetes = { source: 'none' } } = options
  const needsRoot = purpose !== 'check'
  if (needsRoot) requireRoot(options, 'it makes networks, mounts and low ports')
  const missing = await missingPackages(packagesFor(purpose))
  if (missing.length > 0) {
    requireRoot(options, `these Debian packages are missing: ${missing.join(' ')}`)
    await installPackages(missing, options)
  }
  signal.throwIfAborted()
  await options.preflight?.()
  if (TESTS_KUBERNETES.includes(purpose)) await ensureKubernetes({ ...options, choice: TEST_KUBERNETES })
  if (purpose === 'test') await ensureBaseImage({ ...options, kubernetes: TEST_KUBERNETES })
  if (!NEEDS_IMAGE.includes(purpose)) return {}
  const { choice, build } = await prepareKubernetes(kubernetes, options)
  const image = await ensureBaseImage({ ...options, kubernetes: choice })
  return { image, ...(build !== undefined && { kubernetes: build }) }
}

function requireRoot({ userId, purpose }: SetupOptions, why: string): void {
  if (userId === 0) return
  const command = COMMANDS[purpose]
  throw new KitError('forbidden', `Cannot run ${command}: it must be run as root, for ${why}`, {
    fix: `sudo ${command}`,
  })
}
