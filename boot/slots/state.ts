// One state of a machine's disk as the simulator sees it: the files of kit-esp and kit-overlay, the slots' partitions.

import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { type Choice, choices, type Files, type Firmware } from './rules.ts'

export const partitionNames = ['root-a', 'verity-a', 'root-b', 'verity-b'] as const

export type State = {
  readonly esp: Files
  readonly overlay: Files
  readonly partitions: ReadonlyMap<string, Buffer>
}

export type Image = {
  readonly version: string
  readonly rootHash: string
  readonly files: ReadonlyMap<string, Buffer>
}

/** What there is to start from: images by root hash, bundles by digest with the files that make one complete. */
export type Known = {
  readonly images: ReadonlyMap<string, Image>
  readonly bundles: ReadonlyMap<string, Files>
}

/** Directories end in a slash and have no content. */
export function readTree(folder: string, below = ''): Map<string, Buffer> {
  const files = new Map<string, Buffer>()
  if (!existsSync(folder)) return files
  for (const entry of readdirSync(`${folder}/${below}`, { withFileTypes: true })) {
    const path = `${below}${entry.name}`
    if (entry.name === 'lost+found') continue
    if (entry.isDirectory()) {
      files.set(`${path}/`, Buffer.alloc(0))
      for (const [name, content] of readTree(folder, `${path}/`)) files.set(name, content)
    } else {
      files.set(path, readFileSync(`${folder}/${path}`))
    }
  }
  return files
}

export function keyOf(state: State): string {
  const hash = createHash('sha256')
  for (const files of [state.esp, state.overlay, state.partitions]) {
    for (const [path, content] of [...files].toSorted(([one], [other]) => (one < other ? -1 : 1))) {
      hash.update(`${path}\0${content.length}\0`).update(content)
    }
  }
  return hash.digest('hex')
}

/** What starts first, and for a trial also what starts after it has failed. */
export function startsOf(state: State, firmware: Firmware): Choice[] {
  const all = choices(state.esp, firmware)
  const last = all.findIndex((choice) => choice.kind !== 'slot' || !choice.isTrial)
  return all.slice(0, last + 1)
}

/** What the initrd and the kernel would find wrong with a slot that is started with these options; nothing when all fits. */
export function problemsOf(state: State, choice: Extract<Choice, { kind: 'slot' }>, known: Known): string[] {
  const { slot, options } = choice
  const option = (name: string) => new RegExp(`(?:^| )kit\\.${name}=(\\S*)`).exec(options)?.[1] ?? ''
  const image = known.images.get(option('root-hash'))
  if (image === undefined)
    return [`slot ${slot} starts with the root hash ${option('root-hash') || '(none)'}`]
  const record = state.overlay.get(`slots/${slot}`)?.toString() ?? ''
  const field = (name: string) => new RegExp(`^${name} (.*)$`, 'm').exec(record)?.[1] ?? ''
  const problems: string[] = []
  const expect = (what: string, is: string, shouldBe: string) => {
    if (is !== shouldBe) problems.push(`slot ${slot}: ${what} is ${is || '(none)'} and should be ${shouldBe}`)
  }
  expect('kit.slot', option('slot'), slot)
  expect('kit.image', option('image'), image.version)
  expect('the state', field('state'), 'written')
  expect('the record’s root hash', field('root-hash'), image.rootHash)
  expect('the record’s image', field('image'), image.version)
  for (const [name, file] of image.files) {
    const there =
      name === 'root.squashfs' || name === 'root.verity'
        ? state.partitions.get(`${name.slice(5) === 'verity' ? 'verity' : 'root'}-${slot}`)
        : state.esp.get(`kit/${slot}/${name}`)
    if (there === undefined || !there.subarray(0, file.length).equals(file)) {
      problems.push(`slot ${slot}: ${name} is not that of image ${image.version}`)
    }
  }
  return [...problems, ...bundleProblems(state, slot, field('bundle'), known)]
}

function bundleProblems(state: State, slot: string, digest: string, known: Known): string[] {
  const wanted = known.bundles.get(digest)
  if (wanted === undefined) return [`slot ${slot}: the record names the bundle ${digest || '(none)'}`]
  for (const [path, content] of wanted) {
    if (state.overlay.get(`bundles/${digest}/${path}`)?.equals(content) !== true) {
      return [`slot ${slot}: bundle ${digest.slice(0, 4)}… is there without ${path}`]
    }
  }
  return []
}
