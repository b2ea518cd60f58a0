// The machines of a virtual LAN by name: each keeps its place on the bridge, whether it is on or off.

import { KitError } from '#lib/errors.ts'

import { addTap, type Netns } from './netns.ts'
import type { MachineSpec } from './qemu.ts'
import { createVm, type Vm } from './vm.ts'

export interface WallSocketsOptions {
  readonly netns: Netns
  readonly bridge: string
  readonly folder: string
}

/** One machine's place: its end of the cable, and the machine while it is on. */
interface Place {
  readonly tap: string
  vm?: Promise<Vm>
}

export class WallSockets {
  readonly #options: WallSocketsOptions
  readonly #places = new Map<string, Place>()

  constructor(options: WallSocketsOptions) {
    this.#options = options
  }

  /** Throws KitError `conflict` when a machine of that name is on. */
  async powerOn(spec: MachineSpec): Promise<Vm> {
    const known = this.#places.get(spec.name)
    if (known?.vm !== undefined) {
      throw new KitError('conflict', `Cannot switch on ${spec.name}: it is on`, {
        fix: 'pull its plug first',
      })
    }
    const place: Place = known ?? { tap: `tap${this.#places.size}` }
    this.#places.set(spec.name, place)
    place.vm = this.#start(spec, place, known === undefined)
    return place.vm
  }

  /** One that is just being switched on is waited for: nobody else would switch it off. */
  async powerOffAll(): Promise<void> {
    const vms = [...this.#places.values()].flatMap(({ vm }) => vm ?? [])
    for (const started of await Promise.allSettled(vms)) {
      if (started.status === 'fulfilled') await started.value.kill()
    }
  }

  async #start(spec: MachineSpec, place: Place, isNew: boolean): Promise<Vm> {
    const { netns, bridge, folder } = this.#options
    const off = () => {
      delete place.vm
    }
    try {
      if (isNew) await addTap(netns, { name: place.tap, bridge })
      const vm = await createVm({ netns, tap: place.tap, folder }, spec)
      void vm.exited.then(off) // heard before anybody who waits for it goes on
      return vm
    } catch (error) {
      off()
      throw error
    }
  }
}
