// The one table of a machine's states. Only a machine's own check-in moves it along.

/**
 * - `discovered`: seen on the network, has said nothing of itself
 * - `starting`: its initrd runs
 * - `running`: its system is up and its agent has checked in
 * - `failed`: its initrd gave up; it retries by itself
 */
export type MachineState = 'discovered' | 'starting' | 'running' | 'failed'

/** What a check-in says of the boot it belongs to. */
export type CheckInPhase = 'starting' | 'running' | 'failed'

const TRANSITIONS: Readonly<Record<MachineState, Readonly<Record<CheckInPhase, MachineState>>>> = {
  discovered: { starting: 'starting', running: 'running', failed: 'failed' },
  starting: { starting: 'starting', running: 'running', failed: 'failed' },
  running: { starting: 'starting', running: 'running', failed: 'failed' },
  failed: { starting: 'starting', running: 'running', failed: 'failed' },
}

export const CHECK_IN_PHASES: readonly CheckInPhase[] = ['starting', 'running', 'failed']

export function nextState(state: MachineState, phase: CheckInPhase): MachineState {
  return TRANSITIONS[state][phase]
}
