// Child processes that cannot outlive the process that started them.

import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process'

import { cannotStart } from './process.ts'

export interface ChildOptions {
  readonly stdio?: StdioOptions
  readonly env?: NodeJS.ProcessEnv
  readonly cwd?: string
}

export interface Child {
  readonly process: ChildProcess
  readonly pid: number
  /** Resolves once, with how it ended in words: `exit code 1`, `signal SIGKILL`. */
  readonly exited: Promise<string>
  /** False from the moment it has ended. */
  readonly isRunning: () => boolean
  /** Asks it to end, and kills it when it has not after `graceMs`. Resolves when it is gone. */
  stop(graceMs: number): Promise<void>
  /** SIGKILL, at once. Resolves when it is gone. */
  kill(): Promise<void>
}

/**
 * Starts a program that the kernel kills when this process ends, however it ends: `prctl(PR_SET_PDEATHSIG)`
 * survives the execs that follow (setpriv, nsenter, the program itself; prctl(2)).
 * It gets a session of its own, so that a Ctrl-C in the terminal reaches only the parent, which stops it in order.
 * Throws KitError `unavailable` when the program cannot be started.
 */
export function startChild(command: string, args: readonly string[], options: ChildOptions = {}): Child {
  const process = spawn('setpriv', ['--pdeathsig', 'KILL', command, ...args], {
    stdio: options.stdio ?? 'ignore',
    detached: true,
    ...(options.env === undefined ? {} : { env: options.env }),
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  })
  let running = true
  const exited = new Promise<string>((resolve) => {
    process.once('error', (error) => resolve(cannotStart('setpriv', error).message))
    process.once('exit', (code, signal) => {
      running = false
      resolve(signal === null ? `exit code ${code}` : `signal ${signal}`)
    })
  })
  const pid = process.pid
  if (pid === undefined) throw cannotStart(command, new Error('setpriv (package util-linux) cannot be run'))

  const end = async (signal: NodeJS.Signals) => {
    if (running) process.kill(signal)
    await exited
  }
  return {
    process,
    pid,
    exited,
    isRunning: () => running,
    kill: () => end('SIGKILL'),
    async stop(graceMs) {
      const timer = setTimeout(() => process.kill('SIGKILL'), graceMs)
      await end('SIGTERM').finally(() => clearTimeout(timer))
    },
  }
}
