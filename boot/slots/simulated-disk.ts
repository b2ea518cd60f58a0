// The disk that the simulator cuts: files behind loop devices, kit-esp and kit-overlay mounted; and plain folders in their
// place where an operation is only run again.

import { execFileSync } from 'node:child_process'
import {
  closeSync,
  copyFileSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { partitionNames, readTree, type State } from './state.ts'

const espBytes = 2 ** 22
const overlayBytes = 2 ** 22
const partitionBytes = 131072
/** kit-esp is mounted with dirsync; what FAT's lack of a journal adds to that is in torn.ts. */
const fileSystems = {
  esp: { bytes: espBytes, make: ['-b', '1024', '-J', 'size=1'], mount: 'rw,noatime,dirsync' },
  overlay: { bytes: overlayBytes, make: ['-b', '1024', '-J', 'size=1'], mount: 'rw,noatime' },
} as const
type FileSystem = keyof typeof fileSystems

function writeTree(folder: string, files: ReadonlyMap<string, Buffer>): void {
  mkdirSync(folder, { recursive: true })
  for (const [path, content] of files) {
    if (path.endsWith('/')) mkdirSync(`${folder}/${path}`, { recursive: true })
    else writeFileSync(`${folder}/${path}`, content)
  }
}

/** A state in plain folders: `esp`, `overlay`, `dev/<partition>`. */
export function writeState(folder: string, state: State): void {
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(`${folder}/dev/mapper`, { recursive: true })
  writeTree(`${folder}/esp`, state.esp)
  writeTree(`${folder}/overlay`, state.overlay)
  for (const name of partitionNames) {
    writeFileSync(`${folder}/dev/${name}`, state.partitions.get(name) ?? Buffer.alloc(partitionBytes))
  }
}

export function readState(folder: string): State {
  return {
    esp: readTree(`${folder}/esp`),
    overlay: readTree(`${folder}/overlay`),
    partitions: new Map(partitionNames.map((name) => [name, readFileSync(`${folder}/dev/${name}`)])),
  }
}

export class SimulatedDisk {
  readonly folder: string
  #loops: number[] = []
  #seen = new Map<string, bigint>()
  #found = { esp: new Map<string, Buffer>(), overlay: new Map<string, Buffer>() }

  /** `folder` is made anew. close() ends it. */
  constructor(folder: string, state: State) {
    this.folder = folder
    rmSync(folder, { recursive: true, force: true })
    for (const name of ['backing', 'dev/mapper', 'esp', 'overlay', 'look']) {
      mkdirSync(`${folder}/${name}`, { recursive: true })
    }
    for (const name of partitionNames) {
      writeFileSync(this.#backing(name), state.partitions.get(name) ?? Buffer.alloc(partitionBytes))
      const loop = execFileSync('losetup', ['--find', '--show', this.#backing(name)])
        .toString()
        .trim()
      // Detached now, gone when the last who has it open closes it: however this process ends.
      this.#loops.push(openSync(loop, 'r'))
      execFileSync('losetup', ['--detach', loop])
      symlinkSync(loop, `${folder}/dev/${name}`)
    }
    for (const name of ['esp', 'overlay'] as const) {
      this.#format(name)
      execFileSync('mount', [
        '-o',
        `loop,${fileSystems[name].mount}`,
        this.#backing(name),
        `${folder}/${name}`,
      ])
      writeTree(`${folder}/${name}`, state[name])
    }
    execFileSync('sync', ['-f', `${folder}/esp`])
    execFileSync('sync', ['-f', `${folder}/overlay`])
  }

  /** The command that a powerwash calls for a new kit-overlay, as a script. */
  newOverlayScript(): string {
    const { make, mount } = fileSystems.overlay
    const place = `${this.folder}/overlay`
    const image = this.#backing('overlay')
    return `#!/bin/sh\nset -e\numount '${place}'\nmkfs.ext4 -q -F ${make.join(' ')} '${image}'\nmount -o loop,${mount} '${image}' '${place}'\n`
  }

  /** Were everything written to reach the disk. */
  live(): State {
    return readState(this.folder)
  }

  /** What has reached the disk by now, as a machine finds it after a cut; undefined when that is what it was last time. */
  durable(): State | undefined {
    const changed = [...partitionNames, 'esp', 'overlay'].filter((name) => {
      const time = statSync(this.#backing(name), { bigint: true }).mtimeNs
      const isNew = this.#seen.get(name) !== time
      this.#seen.set(name, time)
      return isNew
    })
    if (changed.length === 0) return undefined
    for (const name of ['esp', 'overlay'] as const) {
      if (changed.includes(name)) this.#found[name] = this.#look(name)
    }
    return {
      ...this.#found,
      partitions: new Map(partitionNames.map((name) => [name, readFileSync(this.#backing(name))])),
    }
  }

  close(): void {
    for (const name of ['look', 'esp', 'overlay']) {
      try {
        execFileSync('umount', [`${this.folder}/${name}`], { stdio: 'ignore' })
      } catch {
        // Not mounted: closed by halves, or never opened that far.
      }
    }
    for (const loop of this.#loops) closeSync(loop)
    this.#loops = []
    rmSync(this.folder, { recursive: true, force: true })
  }

  #look(name: FileSystem): Map<string, Buffer> {
    const copy = `${this.folder}/copy`
    const place = `${this.folder}/look`
    copyFileSync(this.#backing(name), copy)
    try {
      execFileSync('mount', ['-o', 'loop', copy, place], { stdio: 'ignore' })
    } catch {
      // Cut while it was being made: there is no file system.
      return new Map()
    }
    const files = readTree(place)
    execFileSync('umount', [place])
    return files
  }

  #format(name: FileSystem): void {
    const { bytes, make } = fileSystems[name]
    writeFileSync(this.#backing(name), '')
    truncateSync(this.#backing(name), bytes)
    execFileSync('mkfs.ext4', ['-q', '-F', ...make, this.#backing(name)], { stdio: 'ignore' })
  }

  #backing(name: string): string {
    return `${this.folder}/backing/${name}`
  }
}
