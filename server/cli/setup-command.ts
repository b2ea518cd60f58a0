// `kateskit setup`: the set-up that every other command that needs one runs too.

import type { Config } from '#config'
import { systemClock } from '#lib/clock.ts'
import { imagesFolder } from '#setup/kubernetes.ts'
import type { KubernetesSettings } from '#setup/kubernetes-source.ts'
import type { Purpose } from '#setup/packages.ts'
import { createProgress } from '#setup/progress.ts'
import { type Prepared, prepare } from '#setup/setup.ts'

import type { ConfigKey } from '../config-table.ts'
import type { CliIo } from './cli-io.ts'

export interface PrepareOptions {
  /** Of the server that the image is for. */
  readonly config?: Config
  readonly preflight?: () => Promise<void>
}

/** Resolves with this checkout's own base image where the purpose needs one. */
export async function prepareFor(
  io: CliIo,
  purpose: Purpose,
  { config, preflight }: PrepareOptions = {},
): Promise<Prepared> {
  return prepare({
    purpose,
    ...(preflight !== undefined && { preflight }),
    ...(config !== undefined && { kubernetes: kubernetesSettings(config, purpose) }),
    projectFolder: io.projectFolder,
    env: io.env,
    progress: createProgress(io.stderr, systemClock),
    signal: io.signal,
    userId: io.userId,
  })
}

/** A LAN has a way to the internet, as far as anybody knows; the lab has none. */
export function kubernetesSettings(config: Config, purpose: Purpose): KubernetesSettings {
  const { values } = config
  const version = values['kubernetes/version']
  const directory = values['kubernetes/directory']
  const repository = values['kubernetes/repository']
  const repositoryKey = values['kubernetes/repository-key']
  return {
    source: values['kubernetes/source'],
    cri: values['kubernetes/cri'],
    ociRuntime: values['kubernetes/oci-runtime'],
    isCutOff: purpose === 'lab' && values['registry/import'] === undefined,
    ...(version !== undefined && { version }),
    ...(directory !== undefined && { directory }),
    ...(repository !== undefined && { repository }),
    ...(repositoryKey !== undefined && { repositoryKey }),
  }
}

/** Settings images/import and registry/import: what somebody has set counts for more than what was just made sure of. */
export function importsOf(
  config: Config,
  { image, kubernetes }: Prepared,
): Readonly<Record<'images/import' | 'registry/import', string>> {
  return {
    'images/import': setOr(config, 'images/import', image),
    'registry/import': setOr(config, 'registry/import', kubernetes && imagesFolder(kubernetes)),
  }
}

function setOr(config: Config, key: ConfigKey, own: string | undefined): string {
  const set = config.explain().find((each) => each.key === key)
  return own === undefined || set?.source !== 'default' ? (set?.value ?? '') : own
}
