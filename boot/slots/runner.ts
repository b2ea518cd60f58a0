// Runs operations.sh: on the simulated disk, stopped before each command that could change it; or on plain folders.

import { execFile, spawn } from 'node:child_process'
import { mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import type { Readable, Writable } from 'node:stream'
import type { Firmware } from './rules.ts'
import { readState, type SimulatedDisk, writeState } from './simulated-disk.ts'
import { partitionNames, type State } from './state.ts'

const here = import.meta.dirname
/** Everything that changes a disk or makes a change last, but the shell's own redirections: those are seen at the next of these. */
const watched = [
  'cp',
  'dd',
  'mkdir',
  'mv',
  'rm',
  'sync',
  'cat',
  'umount',
  'mount',
  'mkfs.ext4',
  'blockdev',
  'cmp',
]
const system = '/usr/sbin:/usr/bin:/sbin:/bin'

// veritysetup checks all of it as the kernel would on reading; the device is then the data itself.
const dmsetup = `#!/bin/sh
case "$1" in
  create) for table; do :; done
    name="$2"; set -- $table
    veritysetup verify "$5" "$6" "\${12}" >&2 && ln -s "$(readlink -f "$5")" "$KIT_DEV/mapper/$name" ;;
  remove) for name; do :; done; rm "$KIT_DEV/mapper/$name" ;;
esac
`

export class Runner {
  readonly firmware: Firmware
  readonly #work: string
  readonly #machine: string

  constructor(work: string, firmware: Firmware) {
    this.firmware = firmware
    this.#work = work
    this.#machine = `${work}/machine`
    rmSync(this.#machine, { recursive: true, force: true })
    this.#makeSysfs()
    for (const name of watched) {
      this.#program(
        'watching',
        name,
        `#!/bin/sh\necho >&3\nread -r _ <&4\nPATH=${system} exec ${name} "$@"\n`,
      )
    }
    for (const folder of ['watching', 'again']) {
      this.#program(folder, 'dmsetup', dmsetup)
      // Never the firmware of the machine that runs this.
      this.#program(folder, 'efibootmgr', '#!/bin/sh\nexit 1\n')
    }
    this.#program('again', 'sync', '#!/bin/sh\n')
    this.#program('again', 'blockdev', '#!/bin/sh\n[ "$1" != --getsize64 ] || stat -L -c %s "$2"\n')
    this.#program('again', 'new-overlay', '#!/bin/sh\nrm -rf "$KIT_OVERLAY" && mkdir "$KIT_OVERLAY"\n')
  }

  /** Calls `take` before each command that could change the disk. */
  runCut(operation: string, disk: SimulatedDisk, take: () => void): Promise<string> {
    this.#program('watching', 'new-overlay', disk.newOverlayScript())
    const child = spawn('dash', [`${here}/operations.sh`, operation], {
      env: this.#environment(disk.folder, 'watching'),
      stdio: ['ignore', 'pipe', 'pipe', 'pipe', 'pipe'],
    })
    const asked = child.stdio[3] as Readable
    const answer = child.stdio[4] as Writable
    asked.on('data', (chunk: Buffer) => {
      for (const _ of chunk) {
        take()
        answer.write('\n')
      }
    })
    let said = ''
    child.stderr?.on('data', (chunk: Buffer) => {
      said += chunk
    })
    child.stdout?.resume()
    return new Promise((resolve) => child.on('close', () => resolve(said)))
  }

  runAgain(operation: string, from: State): Promise<{ state: State; said: string }> {
    const folder = `${this.#work}/again`
    writeState(folder, from)
    this.#linkDisk(folder)
    return new Promise((resolve) => {
      execFile(
        'dash',
        [`${here}/operations.sh`, operation],
        { env: this.#environment(folder, 'again') },
        (_, __, said) => resolve({ state: readState(folder), said: said.trim() }),
      )
    })
  }

  #environment(folder: string, programs: string): NodeJS.ProcessEnv {
    this.#linkDisk(folder)
    rmSync(`${this.#machine}/run`, { recursive: true, force: true })
    mkdirSync(`${this.#machine}/run`)
    return {
      PATH: `${this.#machine}/${programs}:${system}`,
      KIT_RUN: `${this.#machine}/run`,
      KIT_SYS: `${this.#machine}/sys`,
      KIT_PROC: `${this.#machine}/proc`,
      KIT_DEV: `${folder}/dev`,
      KIT_ESP: `${folder}/esp`,
      KIT_OVERLAY: `${folder}/overlay`,
      SIM_LIB: `${here}/../node/root/usr/lib/kit`,
      SIM_IMAGES: `${this.#work}/images`,
      SIM_BUNDLES: `${this.#work}/bundles`,
      SIM_ROOT: `${this.#work}/root`,
      SIM_NEW_OVERLAY: 'new-overlay',
    }
  }

  /** kit-bios and the disk itself are plain files: what is cut there a netboot writes again. */
  #linkDisk(folder: string): void {
    for (const name of ['vda', 'bios']) writeFileSync(`${folder}/dev/${name}`, Buffer.alloc(65536))
  }

  #makeSysfs(): void {
    const blocks = `${this.#machine}/sys/class/block`
    for (const name of [...partitionNames, 'bios', 'esp']) {
      mkdirSync(`${blocks}/vda/${name}`, { recursive: true })
      symlinkSync(`vda/${name}`, `${blocks}/${name}`)
      writeFileSync(`${blocks}/${name}/uevent`, `PARTNAME=kit-${name}\n`)
      writeFileSync(`${blocks}/${name}/start`, '2048\n')
    }
    if (this.firmware === 'uefi') {
      mkdirSync(`${this.#machine}/sys/firmware/efi/efivars`, { recursive: true })
      writeFileSync(`${this.#machine}/sys/firmware/efi/efivars/LoaderInfo`, '')
    }
  }

  #program(folder: string, name: string, text: string): void {
    mkdirSync(`${this.#machine}/${folder}`, { recursive: true })
    writeFileSync(`${this.#machine}/${folder}/${name}`, text, { mode: 0o755 })
  }
}
