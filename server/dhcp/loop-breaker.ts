// Ends the endless chain: a machine that loads the loader again and again and never comes for its boot script.

import type { Clock } from '#lib/clock.ts'
import type { Mac } from '#lib/mac.ts'
import { MESSAGE_TYPE, type MessageType } from '#wire/dhcp4-codes.ts'

export interface LoopLimits {
  /** This many boots within `windowMs` without a script are a loop. */
  readonly boots: number
  readonly windowMs: number
  /** How long the machine is left alone then, so that it goes on to its next boot device. */
  readonly refusalMs: number
  /** REQUESTs closer than this are one boot: UEFI in proxy mode sends one to the router and one, with an xid of its own, to port 4011. */
  readonly sameBootMs: number
  /** Machines remembered; the one not seen for longest is forgotten first. */
  readonly machines: number
}

const DEFAULT_LIMITS: LoopLimits = {
  boots: 5,
  windowMs: 3 * 60_000,
  refusalMs: 5 * 60_000,
  sameBootMs: 3_000,
  machines: 4096,
}

/** `open`: answer. `tripped`: do not, and append the one `boot-loop` event. `refused`: do not answer. */
export type LoopVerdict = 'open' | 'tripped' | 'refused'

interface Track {
  /** When each boot of the window began, and the transaction the last one goes by. */
  readonly bootsMs: readonly number[]
  readonly xid: number | undefined
  readonly refusedUntilMs: number
}

const NEW_TRACK: Track = { bootsMs: [], xid: undefined, refusedUntilMs: Number.NEGATIVE_INFINITY }

export class LoopBreaker {
  readonly #clock: Clock
  readonly #limits: LoopLimits
  /** In the order in which they were last seen. */
  readonly #tracks = new Map<Mac, Track>()

  constructor(clock: Clock, limits: Partial<LoopLimits> = {}) {
    this.#clock = clock
    this.#limits = { ...DEFAULT_LIMITS, ...limits }
  }

  /** To be called once for each packet whose decision is `loader`, whether or not it would get an answer. */
  check(
    mac: Mac,
    packet: { readonly messageType: MessageType | undefined; readonly xid: number },
  ): LoopVerdict {
    const nowMs = this.#clock.monotonicMs()
    const track = this.#tracks.get(mac) ?? NEW_TRACK
    if (nowMs < track.refusedUntilMs) return 'refused'
    // Only a REQUEST means that a boot goes ahead; DISCOVERs are repeated for as long as nobody gives an address.
    if (packet.messageType !== MESSAGE_TYPE.request || packet.xid === track.xid) return 'open'
    const lastMs = track.bootsMs.at(-1)
    if (lastMs !== undefined && nowMs - lastMs < this.#limits.sameBootMs) return 'open'

    const bootsMs = [...track.bootsMs.filter((ms) => nowMs - ms < this.#limits.windowMs), nowMs]
    if (bootsMs.length < this.#limits.boots) {
      this.#remember(mac, { ...track, bootsMs, xid: packet.xid })
      return 'open'
    }
    this.#remember(mac, { ...NEW_TRACK, refusedUntilMs: nowMs + this.#limits.refusalMs })
    return 'tripped'
  }

  /** The machine came for its boot script: the chain holds, and what was counted is forgotten. */
  scriptFetched(mac: Mac): void {
    this.#tracks.delete(mac)
  }

  #remember(mac: Mac, track: Track): void {
    this.#tracks.delete(mac)
    this.#tracks.set(mac, track)
    const oldest = this.#tracks.keys().next()
    if (this.#tracks.size > this.#limits.machines && !oldest.done) this.#tracks.delete(oldest.value)
  }
}
