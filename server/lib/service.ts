// Things that run: started in order, stopped in the opposite order.

export interface Service {
  readonly name: string
  /** Resolves when it answers. Called once. */
  start(): Promise<void>
  /** Ends every timer, socket and listener of the service. Safe to call when `start` failed or never ran. */
  stop(): Promise<void>
}

/** Starts all in order; when one fails, stops those already started and throws its error. */
export async function startAll(services: readonly Service[]): Promise<void> {
  const started: Service[] = []
  for (const service of services) {
    started.push(service)
    try {
      await service.start()
    } catch (error) {
      await stopAll(started).catch(() => {}) // the first failure is the one worth telling
      throw error
    }
  }
}

/** Stops all, last first. One that fails to stop does not keep the others running; all failures are thrown together. */
export async function stopAll(services: readonly Service[]): Promise<void> {
  const failures: unknown[] = []
  for (const service of services.toReversed()) {
    try {
      await service.stop()
    } catch (error) {
      failures.push(error)
    }
  }
  if (failures.length > 0) throw new AggregateError(failures, 'Cannot stop every service')
}
