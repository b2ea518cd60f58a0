// The profile tree as a service: read at start, watched, and always answering with the last good value.

import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'

import { writeFileAtomically } from '#lib/atomic-file.ts'
import type { Clock } from '#lib/clock.ts'
import { describeError, KitError } from '#lib/errors.ts'
import { createKeyedQueue } from '#lib/keyed-queue.ts'
import type { Log } from '#lib/log.ts'
import { isGroupMac, type Mac } from '#lib/mac.ts'
import type { Service } from '#lib/service.ts'
import type { NewEvent } from '#machine/event.ts'
import type { EventLog, ExplainedValue, ProfileProblem, Profiles } from '#machine/ports.ts'
import type { LayerName, Profile } from '#machine/profile.ts'
import { explainProfile, machineLayer, mergeProfile, roleLayer } from '#machine/profile-merge.ts'
import { checkSetting } from '#machine/settings.ts'

import { EMPTY_TREE, settleTree, type TreeState } from './last-good.ts'
import { changedOverlays, type OverlaySigns, signOverlays } from './overlay-signs.ts'
import { readTree } from './read-tree.ts'
import { compareTrees, macsOf, overlayChanged } from './tree-events.ts'
import { type FileWatch, watchFiles } from './watch-files.ts'

export interface ProfileTreeOptions {
  /** Absolute. */
  readonly directory: string
  readonly events: Pick<EventLog, 'append'>
  readonly log: Log
  readonly clock: Clock
  /** How often the tree is read again although nobody told of a change: network file systems do not tell. */
  readonly rereadMs?: number
}

export interface LayerDirectory {
  readonly layer: LayerName
  readonly directory: string
}

export function createProfileTree(options: ProfileTreeOptions): ProfileTree {
  return new ProfileTree(options)
}

export class ProfileTree implements Profiles, Service {
  readonly name = 'profiles'
  readonly #options: ProfileTreeOptions
  readonly #queue = createKeyedQueue<'tree'>()
  readonly #listeners = new Set<() => void>()
  #state: TreeState = EMPTY_TREE
  #overlays: OverlaySigns = new Map()
  #isRead = false
  #watch: FileWatch | undefined
  #cancelReread = () => {}
  #isStopped = false

  constructor(options: ProfileTreeOptions) {
    this.#options = options
  }

  /** Resolves when the tree has been read, be it in order or not. */
  async start(): Promise<void> {
    const { directory, clock, log } = this.#options
    this.#watch = watchFiles({
      roots: [directory],
      clock,
      onChange: () => void this.#reread(),
      onError: (error) => log.warn({ err: error }, `Cannot watch ${directory}: changes are noticed later`),
    })
    await this.#watch.ready // first the watch, then the reading: no change falls in between
    await this.#reread()
    this.#scheduleReread()
  }

  async stop(): Promise<void> {
    this.#isStopped = true
    this.#cancelReread()
    await this.#watch?.stop()
    await this.#queue.run('tree', async () => {})
  }

  profileFor(mac: Mac): Profile {
    return mergeProfile(mac, this.#state.layers)
  }

  explain(mac: Mac): readonly ExplainedValue[] {
    return explainProfile(mac, this.#state.layers)
  }

  problems(): readonly ProfileProblem[] {
    return this.#state.problems
  }

  roles(): readonly string[] {
    const prefix = roleLayer('')
    return [...this.#state.layers.values()]
      .filter(({ name, isGone }) => name.startsWith(prefix) && !isGone)
      .map(({ name }) => name.slice(prefix.length))
      .sort()
  }

  machines(): readonly Mac[] {
    return macsOf(this.#state.layers)
  }

  /** The folders of the machine's layers, lowest first, for the overlay. */
  rootsFor(mac: Mac): readonly LayerDirectory[] {
    return this.profileFor(mac).layers.map((layer) => ({
      layer,
      directory: this.#state.layers.get(layer)?.directory ?? join(this.#options.directory, layer),
    }))
  }

  /**
   * The listener is called after the first reading, and whenever anything in the tree, overlays included, has changed;
   * once more where it cannot be known. It must not throw.
   */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  async assignRole(mac: Mac, role: string): Promise<void> {
    const wrong = checkSetting('machines', 'role', role)
    if (role === '' || wrong !== undefined) throw new KitError('invalid-input', wrong ?? 'Cannot use no role')
    if (isGroupMac(mac))
      throw new KitError('invalid-input', `Cannot give ${mac} a role: it is a group address`)
    await this.#reread() // a role may have been made a moment ago
    if (this.#state.isAbsent) {
      const reason = this.#state.problems[0]?.message
      throw new KitError('unavailable', `Cannot give ${mac} the role ${role}: ${reason}`)
    }
    if (!this.roles().includes(role)) {
      const fix = `the roles are ${this.roles().join(', ') || 'none'}; make ${roleLayer(role)} in the profile tree`
      throw new KitError('not-found', `Cannot give ${mac} the role ${role}: there is no such role`, { fix })
    }
    const layer = machineLayer(mac)
    const directory = this.#state.layers.get(layer)?.directory ?? join(this.#options.directory, layer)
    await writeFileAtomically(join(directory, 'role'), `${role}\n`).catch((cause: unknown) => {
      throw new KitError('unavailable', `Cannot write ${directory}/role: ${describeError(cause)}`, { cause })
    })
    await this.#reread()
    const profile = this.profileFor(mac)
    if (profile.role !== role || profile.broken !== undefined) {
      const problem = this.#state.problems.find((candidate) =>
        ['', 'machines', layer].includes(candidate.layer),
      )
      const reason = problem
        ? `${problem.file}: ${problem.message}`
        : (profile.broken ?? 'the file was changed again')
      throw new KitError('conflict', `Cannot put the role ${role} of ${mac} in force: ${reason}`)
    }
  }

  async unassignRole(mac: Mac): Promise<void> {
    await this.#reread()
    const directory = this.#state.layers.get(machineLayer(mac))?.directory
    if (directory === undefined) return
    await rm(join(directory, 'role'), { force: true }).catch((cause: unknown) => {
      throw new KitError('unavailable', `Cannot remove ${directory}/role: ${describeError(cause)}`, { cause })
    })
    await this.#reread()
  }

  #reread(): Promise<void> {
    return this.#queue.run('tree', async () => {
      const { directory, clock } = this.#options
      const [before, signsBefore] = [this.#state, this.#overlays]
      this.#state = settleTree(before, await readTree(directory), directory)
      this.#overlays = await signOverlays(this.#state.layers, { before: signsBefore, nowMs: clock.nowMs() })
      const changed = changedOverlays(signsBefore, this.#overlays)
      const events = [...compareTrees(before, this.#state), ...changed.map(overlayChanged)]
      const isFirst = !this.#isRead
      this.#isRead = true
      // At the first reading everything is new, and only what is wrong is news.
      await this.#tell(isFirst ? events.filter(({ kind }) => kind === 'profile-broken') : events)
      const mayHaveChanged = changed.length > 0 || [...signsBefore.values()].some(({ isFresh }) => isFresh)
      if (isFirst || mayHaveChanged || !isDeepStrictEqual(before, this.#state)) this.#announce()
    })
  }

  #announce(): void {
    for (const listener of this.#listeners) {
      try {
        listener()
      } catch (error) {
        this.#options.log.error({ err: error }, 'a listener of the profile tree threw')
      }
    }
  }

  async #tell(events: readonly NewEvent[]): Promise<void> {
    for (const event of events) {
      try {
        await this.#options.events.append(event)
      } catch (error) {
        this.#options.log.error({ err: error, event }, 'Cannot write an event of the profile tree')
      }
    }
  }

  /** A mount or unmount is no change of a file that a watch would tell, and neither is anything on a network file system. */
  #scheduleReread(): void {
    if (this.#isStopped) return
    const { clock, rereadMs = 10_000 } = this.#options
    this.#cancelReread = clock.after(rereadMs, () => {
      void this.#reread().then(() => this.#scheduleReread())
    })
  }
}
