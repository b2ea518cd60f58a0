// The one table of a machine's states. Only a machine's own check-in moves it along.

/**
 * - `discovered`: seen on the network, has said nothing of itself
 * - `starting`: its initrd runs
 * - `installing`: its disk is being made new
 * - `running`: its system is up and its agent has checked in
 * - `failed`: its initrd gave up; it retries by itself
 */
export type MachineState = 'discovered' | 'starting' | 'installing' | 'running' | 'failed'

/** What a check-in says of the boot it belongs to. */
export type CheckInPhase = 'starting' | 'installing' | 'running' | 'failed'

const AFTER = {
  starting: 'starting',
  installing: 'installing',
  running: 'running',
  failed: 'failed',
} as const

/** What a machine says of itself counts, whatever was known of it before: it may have been switched off at any point. */
const TRANSITIONS: Readonly<Record<MachineState, Readonly<Record<CheckInPhase, MachineState>>>> = {
  discovered: AFTER,
  starting: AFTER,
  installing: AFTER,
  running: AFTER,
  failed: AFTER,
}

export const CHECK_IN_PHASES: readonly CheckInPhase[] = ['starting', 'installing', 'running', 'failed']

export function nextState(state: MachineState, phase: CheckInPhase): MachineState {
  return TRANSITIONS[state][phase]
}
