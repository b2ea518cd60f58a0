// What is wrong with the overlays, or the secrets, right now, and the events that tell of it: once when it breaks, once when it is mended.

import type { Mac } from '#lib/mac.ts'
import type { NewEvent } from '#machine/event.ts'
import type { ProfileProblem } from '#machine/ports.ts'
import type { LayerName } from '#machine/profile.ts'

export class ProblemBook {
  readonly #byMac = new Map<Mac, readonly ProfileProblem[]>()
  readonly #mended: string

  /** `mended` completes "roles/worker: …". */
  constructor(mended: string) {
    this.#mended = mended
  }

  /** Each problem once, however many machines have it. */
  list(): readonly ProfileProblem[] {
    const all = [...this.#byMac.values()].flat()
    return [...new Map(all.map((problem) => [textOf(problem), problem])).values()]
  }

  /** Takes down what is wrong with one machine's overlay and returns what is news. */
  note(mac: Mac, problems: readonly ProfileProblem[]): readonly NewEvent[] {
    if (problems.length === 0 && !this.#byMac.has(mac)) return []
    const before = this.#textsByLayer()
    if (problems.length > 0) this.#byMac.set(mac, problems)
    else this.#byMac.delete(mac)
    return compare(before, this.#textsByLayer(), this.#mended)
  }

  /** Forgets machines that are not asked for any more. */
  keepOnly(macs: readonly Mac[]): void {
    const kept = new Set(macs)
    for (const mac of this.#byMac.keys()) if (!kept.has(mac)) this.#byMac.delete(mac)
  }

  #textsByLayer(): ReadonlyMap<LayerName, string> {
    const texts = new Map<LayerName, string>()
    for (const problem of this.list()) {
      const earlier = texts.get(problem.layer)
      texts.set(problem.layer, earlier === undefined ? textOf(problem) : `${earlier}; ${textOf(problem)}`)
    }
    return texts
  }
}

export function textOf({ file, message }: ProfileProblem): string {
  return `${file}: ${message}`
}

function compare(
  before: ReadonlyMap<LayerName, string>,
  after: ReadonlyMap<LayerName, string>,
  word: string,
): readonly NewEvent[] {
  const broken = [...after].filter(([layer, text]) => before.get(layer) !== text)
  const mended = [...before.keys()].filter((layer) => !after.has(layer))
  return [
    ...broken.map(([layer, message]) => ({ kind: 'profile-broken', message, data: { layer } }) as const),
    ...mended.map(
      (layer) =>
        ({
          kind: 'profile-mended',
          message: `${layer}: ${word}`,
          data: { layer },
        }) as const,
    ),
  ]
}
