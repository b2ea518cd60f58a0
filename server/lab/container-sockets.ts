// The container machines of a virtual LAN by name, while they are on.

import { KitError } from '#lib/errors.ts'

import { type Container, type ContainerPlace, type ContainerSpec, createContainer } from './container.ts'

export class ContainerSockets {
  readonly #place: ContainerPlace
  readonly #machines = new Map<string, Promise<Container>>()

  constructor(place: ContainerPlace) {
    this.#place = place
  }

  /** Throws KitError `conflict` when a machine of that name is on. */
  async powerOn(spec: ContainerSpec): Promise<Container> {
    if (this.#machines.has(spec.name)) {
      throw new KitError('conflict', `Cannot switch on ${spec.name}: it is on`, {
        fix: 'pull its plug first',
      })
    }
    const off = () => void this.#machines.delete(spec.name)
    const starting = createContainer(this.#place, spec)
    this.#machines.set(spec.name, starting)
    try {
      const machine = await starting
      void machine.exited.then(off) // heard before anybody who waits for it goes on
      return machine
    } catch (error) {
      off()
      throw error
    }
  }

  /** One that is just being switched on is waited for: nobody else would switch it off. */
  async powerOffAll(): Promise<void> {
    for (const started of await Promise.allSettled(this.#machines.values())) {
      if (started.status === 'fulfilled') await started.value.kill()
    }
  }
}
