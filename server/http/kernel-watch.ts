// Notices when a machine has been handed both its kernel and its initrd.

import type { Mac } from '#lib/mac.ts'
import type { EventLog } from '#machine/ports.ts'

/** More machines than this do not boot at once; a client that makes MACs up must not fill memory. */
const MACHINES_MAX = 4_096

const BOTH = ['vmlinuz', 'initrd.img']

export class KernelWatch {
  readonly #events: EventLog
  readonly #sent = new Map<string, ReadonlySet<string>>()

  constructor(events: EventLog) {
    this.#events = events
  }

  /** A file of an image went out whole to the machine that its URL named. */
  async sent(mac: Mac, image: string, name: string): Promise<void> {
    if (!BOTH.includes(name)) return
    const key = `${mac} ${image}`
    const names = new Set(this.#sent.get(key)).add(name)
    this.#sent.delete(key)
    if (names.size < BOTH.length) {
      this.#sent.set(key, names)
      const [oldest] = this.#sent.keys()
      if (this.#sent.size > MACHINES_MAX && oldest !== undefined) this.#sent.delete(oldest)
      return
    }
    await this.#events.append({
      kind: 'kernel-sent',
      mac,
      message: `kernel and initrd of image ${image} sent`,
      data: { image },
    })
  }
}
