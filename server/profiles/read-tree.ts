// Reading the whole profile tree: which layers there are, and whether the tree is there at all.

import { readdir, realpath } from 'node:fs/promises'
import { join } from 'node:path'

import { describeError, systemErrorCode } from '#lib/errors.ts'
import { isIgnoredName } from '#lib/flat-file.ts'
import { findMac, isGroupMac } from '#lib/mac.ts'
import { didYouMean } from '#lib/nearest.ts'
import type { ProfileProblem } from '#machine/ports.ts'
import type { LayerName } from '#machine/profile.ts'
import { machineLayer } from '#machine/profile-merge.ts'
import { checkChannelFolder, checkSetting, LAYER_KINDS, type LayerKind } from '#machine/settings.ts'

import { type LayerReading, readLayer, resolveInside } from './read-layer.ts'

export interface TreeReading {
  readonly layers: ReadonlyMap<LayerName, LayerReading>
  /** Those of no layer; `layer` is the folder above, or empty for the tree itself. */
  readonly problems: readonly ProfileProblem[]
  /** The beginnings of layer names of which nothing could be learned: empty text stands for all. */
  readonly unknown: readonly string[]
  /** Nothing at all lies there, not even a hidden file: what the mount point of an unmounted file system looks like. */
  readonly isEmpty: boolean
}

/** Never throws. */
export async function readTree(directory: string): Promise<TreeReading> {
  let treeRoot: string
  let names: readonly string[]
  try {
    treeRoot = await realpath(directory)
    names = await readdir(treeRoot)
  } catch (error) {
    const message = `Cannot read the profile tree: ${describeError(error)}`
    const problems = [{ layer: '', file: directory, message }]
    return { layers: new Map(), problems, unknown: [''], isEmpty: false }
  }
  const reading = new Reading(directory, treeRoot)
  for (const name of names.toSorted()) {
    if (!isIgnoredName(name)) await reading.readTop(name)
  }
  const { layers, problems, unknown } = reading
  return { layers, problems, unknown, isEmpty: names.length === 0 }
}

/** One pass over the tree. */
class Reading {
  readonly layers = new Map<LayerName, LayerReading>()
  readonly problems: ProfileProblem[] = []
  readonly unknown: string[] = []
  readonly #directory: string
  readonly #treeRoot: string

  constructor(directory: string, treeRoot: string) {
    this.#directory = directory
    this.#treeRoot = treeRoot
  }

  async readTop(name: string): Promise<void> {
    const kind = LAYER_KINDS.find((known) => known === name)
    if (kind === undefined) {
      const message = `Cannot use ${name}: the folders here are ${LAYER_KINDS.join(', ')}${didYouMean(name, LAYER_KINDS)}`
      this.#report('', name, message)
    } else if (kind === 'defaults') {
      await this.#addLayer('defaults', kind, join(this.#directory, name))
    } else {
      await this.#readGroup(kind)
    }
  }

  async #readGroup(kind: Exclude<LayerKind, 'defaults'>): Promise<void> {
    const group = join(this.#directory, kind)
    let names: readonly string[]
    try {
      names = await readdir(await resolveInside(group, this.#treeRoot))
    } catch (error) {
      if (systemErrorCode(error) === 'ENOENT') return
      this.#report(kind, kind, `Cannot read ${kind}/: ${describeError(error)}`)
      this.unknown.push(`${kind}/`)
      return
    }
    for (const name of names.toSorted()) {
      if (isIgnoredName(name)) continue
      const path = join(kind, name)
      const layer = kind === 'machines' ? this.#nameOfMachine(name) : this.#nameOf(kind, name)
      if (layer === undefined) continue
      const first = this.layers.get(layer)
      if (first) {
        const message = `Cannot use ${path}: ${first.directory} is the same machine`
        const problem = { layer, file: join(this.#directory, path), message }
        this.layers.set(layer, { ...first, problems: [...first.problems, problem] })
      } else await this.#addLayer(layer, kind, join(this.#directory, path))
    }
  }

  async #addLayer(name: LayerName, kind: LayerKind, directory: string): Promise<void> {
    this.layers.set(name, await readLayer({ name, kind, directory, treeRoot: this.#treeRoot }))
  }

  #nameOf(kind: 'channels' | 'roles', name: string): LayerName | undefined {
    const wrong = kind === 'roles' ? checkSetting('machines', 'role', name) : checkChannelFolder(name)
    if (wrong === undefined) return `${kind}/${name}`
    this.#report(kind, join(kind, name), wrong)
    return undefined
  }

  #nameOfMachine(name: string): LayerName | undefined {
    const mac = findMac(name)
    if (mac !== undefined && !isGroupMac(mac)) return machineLayer(mac)
    const message = `Cannot use machines/${name}: a machine's folder is called by its MAC, such as 52-54-00-12-34-56`
    this.#report('machines', join('machines', name), message)
    return undefined
  }

  #report(layer: string, path: string, message: string): void {
    this.problems.push({ layer, file: join(this.#directory, path), message })
  }
}
