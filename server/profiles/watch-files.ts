// Being told that files have changed: bursts become one call, and a watcher that fails says so.

import { dirname } from 'node:path'

import chokidar from 'chokidar'

import type { Clock } from '#lib/clock.ts'

export interface WatchOptions {
  /** Absolute paths of files and whole directories. They need not exist, but the directories they lie in must. */
  readonly roots: readonly string[]
  readonly clock: Clock
  /** Called after a burst of changes. Must not throw. */
  readonly onChange: () => void
  /** The kernel has no watch left, or a directory cannot be opened: changes may go unnoticed. */
  readonly onError: (error: unknown) => void
}

export interface FileWatch {
  /** Resolves when every later change will be noticed. */
  readonly ready: Promise<void>
  stop(): Promise<void>
}

/** An editor's write-and-rename is several changes, a `git checkout` hundreds: one call after this long without any … */
const QUIET_MS = 100
/** … but never later than this after the first, so that a file written all the time hides nothing. */
const LONGEST_MS = 1000

export function watchFiles({ roots, clock, onChange, onError }: WatchOptions): FileWatch {
  // Through its parent a root is still noticed when it is made later, moved away or replaced as a whole
  // (seen on chokidar 5.0.0: a root that is missing at first is not).
  const parents = new Set(roots.map((root) => dirname(root)))
  const watcher = chokidar.watch([...parents], {
    ignoreInitial: true,
    // A link out of the tree would be followed by the watcher into wherever it leads.
    followSymlinks: false,
    ignored: (path) =>
      !parents.has(path) && !roots.some((root) => path === root || path.startsWith(`${root}/`)),
  })
  /** When the first change of this burst came; undefined between bursts. */
  let firstMs: number | undefined
  let cancel = () => {}

  const flush = () => {
    firstMs = undefined
    onChange()
  }
  watcher.on('all', (_event, path) => {
    if (parents.has(path) && !roots.includes(path)) return
    const nowMs = clock.monotonicMs()
    firstMs ??= nowMs
    cancel()
    cancel = clock.after(Math.max(0, Math.min(QUIET_MS, firstMs + LONGEST_MS - nowMs)), flush)
  })
  watcher.on('error', onError)

  return {
    ready: new Promise((resolve) => watcher.once('ready', () => resolve())),
    async stop() {
      cancel()
      await watcher.close()
    },
  }
}
