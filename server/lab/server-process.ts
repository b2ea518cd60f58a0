// The server as a child process inside the lab's network: the same program and settings that a real LAN gets.

import { open } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import type { Child } from '#lib/child.ts'
import { KitError } from '#lib/errors.ts'
import { pollUntil } from '#lib/retry.ts'
import type { Service } from '#lib/service.ts'
import type { Netns } from './netns.ts'
import { createServerClient, type ServerClient } from './server-client.ts'

export interface ServerSettings {
  /** Every setting that is not the default, as `KATESKIT_<PATH>` (see server/config.ts). */
  readonly environment: Readonly<Record<string, string>>
  readonly controlSocket: string
  /** Where its output goes; appended to, so that a restart keeps what the first run said. */
  readonly logFile: string
}

export interface ServerProcess extends Service {
  readonly client: ServerClient
  readonly pid: () => number | undefined
  /** SIGKILL, as a power cut would; `start` brings it back with the same state. */
  kill9(): Promise<void>
  /** Resolves, with how, when the present process ends. */
  exited(): Promise<string>
}

/** Its SQLite migrations and the first look at the profile tree included; 1 s idle, 6 s on two busy cores. */
const START_TIMEOUT_MS = 60_000
const STOP_GRACE_MS = 5_000

const MAIN = fileURLToPath(new URL('../main.ts', import.meta.url))

export function createServerProcess(netns: Netns, settings: ServerSettings): ServerProcess {
  const client = createServerClient({ kind: 'socket', path: settings.controlSocket })
  let child: Child | undefined
  return {
    name: 'server',
    client,
    pid: () => child?.pid,
    exited: () => child?.exited ?? Promise.resolve('never started'),
    async start() {
      child = await launch(netns, settings)
      await answers(child, client, settings.logFile)
    },
    stop: async () => child?.stop(STOP_GRACE_MS),
    kill9: async () => child?.kill(),
  }
}

async function launch(netns: Netns, settings: ServerSettings): Promise<Child> {
  const log = await open(settings.logFile, 'a', 0o600)
  try {
    return netns.start(process.execPath, [MAIN, 'serve'], {
      stdio: ['ignore', log.fd, log.fd],
      env: { ...withoutSettings(process.env), ...settings.environment },
    })
  } finally {
    await log.close() // the child has its own copy
  }
}

/** A person's settings for a real LAN have no say in the lab. */
function withoutSettings(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(environment).filter(([name]) => !name.startsWith('KATESKIT_')))
}

async function answers(child: Child, client: ServerClient, logFile: string): Promise<void> {
  const failed = (why: string) =>
    new KitError('unavailable', `Cannot start the server: ${why}`, { fix: `read ${logFile}` })
  await pollUntil(
    async () => {
      if (!child.isRunning()) throw failed(`it ended with ${await child.exited}`)
      return (await client.isHealthy()) || undefined
    },
    {
      everyMs: 100,
      timeoutMs: START_TIMEOUT_MS,
      late: () => failed(`it does not answer after ${START_TIMEOUT_MS / 1000} s`),
    },
  )
}
