// Which layers a machine's bundle is merged from: those of its profile, over the files of its network plugin.

import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

import { cniOf, nodeRoleOf } from '#machine/node-settings.ts'
import type { ImageStore } from '#machine/ports.ts'
import type { Profile } from '#machine/profile.ts'
import type { LayerSource } from '#overlays/overlays.ts'
import type { ProfileTree } from '#profiles/tree.ts'

const PLUGINS = fileURLToPath(new URL('../assets/cni', import.meta.url))

/**
 * Anything of the plugin may be replaced, or deleted, by the machine's own layers. A server none of whose images has Kubernetes
 * has no use for them.
 */
export function bundleLayers(
  tree: Pick<ProfileTree, 'profileFor' | 'rootsFor'>,
  images: Pick<ImageStore, 'list'>,
): LayerSource {
  const pluginOf = (profile: Profile) => {
    const name = cniOf(profile)
    const isUsed = name !== 'none' && nodeRoleOf(profile) !== 'none'
    if (!isUsed || !images.list().some(({ kubernetes }) => kubernetes !== undefined)) return []
    return [{ layer: `cni/${name}`, directory: join(PLUGINS, name) }]
  }
  return { layersFor: (mac) => [...pluginOf(tree.profileFor(mac)), ...tree.rootsFor(mac)] }
}
