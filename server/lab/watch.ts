// Follows the server's events and says where every lab machine is.

import { describeError, KitError } from '#lib/errors.ts'
import type { Mac } from '#lib/mac.ts'
import type { MachineView } from '#machine/ports.ts'

import type { AnyLabMachine } from './lab-machines.ts'
import { advance, type BootProgress, powerOn } from './phases.ts'
import type { ServerClient } from './server-client.ts'

/** Everything known of one machine at one moment. */
export interface MachineStatus {
  readonly machine: AnyLabMachine
  readonly progress: BootProgress
  /** What the server says of it; undefined before it was first asked or while it is down. */
  readonly view: MachineView | undefined
  /** Its image has Kubernetes, without which nobody has a part in a cluster. */
  readonly hasKubernetes?: boolean
}

export interface Watch {
  /** In the order of the machines. */
  statuses(): readonly MachineStatus[]
  /** Resolves when every machine runs with its wanted bundle. Throws KitError when `signal` aborts or the server refuses. */
  allReady(signal: AbortSignal): Promise<void>
  /** Called after every event that concerns a lab machine; the returned function ends it. */
  onChange(listener: () => void): () => void
  stop(): Promise<void>
}

export interface WatchOptions {
  readonly client: ServerClient
  readonly machines: readonly AnyLabMachine[]
  /** When each was switched on. */
  readonly poweredOnMs: ReadonlyMap<Mac, number>
  /** Events up to this one belong to earlier boots. */
  readonly afterId: number
  /** Of all machines; default: false. */
  readonly hasKubernetes?: boolean
}

/** A machine is there when it runs as it should, and its node is Ready if it is to be one. */
export function isReady(status: MachineStatus): boolean {
  return hasArrived(status) && !isJoining(status)
}

/** It is to be a node, and is not Ready yet. */
function isJoining({ hasKubernetes, view }: MachineStatus): boolean {
  const hasPart = hasKubernetes === true && view?.part !== undefined
  return (hasPart || view?.node !== undefined) && view?.node?.state !== 'ready'
}

/** It runs, from its slot if its disk is to have one, and has the files it should have. */
export function hasArrived(status: MachineStatus): boolean {
  const { machine, view, progress } = status
  return (
    progress.phase === 'running' &&
    view?.state === 'running' &&
    (view.isInstalled !== false || machine.firmware === 'container') &&
    view.wantedBundle !== undefined &&
    view.bundleDigest === view.wantedBundle
  )
}

export function watchMachines(options: WatchOptions): Watch {
  const aborted = new AbortController()
  const progress = new Map(
    options.machines.map(({ mac }) => [mac, powerOn(options.poweredOnMs.get(mac) ?? Date.now())]),
  )
  const views = new Map<Mac, MachineView>()
  const listeners = new Set<() => void>()
  let failure: unknown
  const tell = () => {
    for (const listener of listeners) listener()
  }

  const run = async () => {
    await refreshViews(options.client, views)
    for await (const event of options.client.follow(options.afterId, aborted.signal)) {
      const before = event.mac && progress.get(event.mac)
      if (event.mac !== undefined && before !== undefined) progress.set(event.mac, advance(before, event))
      // Views carry what files say (role, wanted bundle), so an event without a MAC can change them too.
      await refreshViews(options.client, views)
      tell()
    }
  }
  const running = run().catch((error: unknown) => {
    failure = error
    tell()
  })

  const statuses = () =>
    options.machines.map((machine) => ({
      machine,
      progress: progress.get(machine.mac) ?? powerOn(Date.now()),
      view: views.get(machine.mac),
      hasKubernetes: options.hasKubernetes ?? false,
    }))
  const onChange = (listener: () => void) => {
    listeners.add(listener)
    return () => void listeners.delete(listener)
  }
  return {
    statuses,
    onChange,
    allReady: (signal) =>
      waitUntil(
        () => {
          if (failure !== undefined) throw failure
          return statuses().every(isReady)
        },
        { onChange, signal },
      ),
    async stop() {
      aborted.abort()
      await running
    },
  }
}

async function refreshViews(client: ServerClient, views: Map<Mac, MachineView>): Promise<void> {
  try {
    for (const view of await client.machines()) views.set(view.mac, view)
  } catch (error) {
    if (!(error instanceof KitError && error.code === 'unavailable')) throw error // restarting: the next event refreshes
  }
}

function waitUntil(
  holds: () => boolean,
  options: { readonly onChange: Watch['onChange']; readonly signal: AbortSignal },
): Promise<void> {
  return new Promise((resolve, reject) => {
    const forget = options.onChange(() => check())
    const end = (act: () => void) => {
      forget()
      options.signal.removeEventListener('abort', late)
      act()
    }
    const late = () =>
      end(() =>
        reject(
          new KitError(
            'unavailable',
            `Cannot see every machine ready: ${describeError(options.signal.reason)}`,
          ),
        ),
      )
    const check = () => {
      try {
        if (holds()) end(resolve)
      } catch (error) {
        end(() => reject(error))
      }
    }
    options.signal.addEventListener('abort', late)
    if (options.signal.aborted) late()
    else check()
  })
}
