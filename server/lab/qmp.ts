// QEMU's machine protocol: one JSON object a line over a unix socket (QEMU docs/interop/qmp-spec).

import { once } from 'node:events'
import { connect, type Socket } from 'node:net'

import { KitError, systemErrorCode } from '#lib/errors.ts'
import { onLines } from '#lib/process.ts'

export interface Qmp {
  /** Resolves with `return`. Throws KitError with QEMU's own words when it refuses. */
  execute(command: string, options?: Readonly<Record<string, unknown>>): Promise<unknown>
  /** The data of the last event of that name; undefined when there was none. */
  lastEvent(name: string): Readonly<Record<string, unknown>> | undefined
  /** Resolves when QEMU has ended and all it had to say was heard. */
  readonly closed: Promise<void>
}

interface QmpMessage {
  readonly QMP?: unknown
  readonly return?: unknown
  readonly error?: { readonly desc?: string }
  readonly id?: number
  readonly event?: string
  readonly data?: Readonly<Record<string, unknown>>
}

interface Pending {
  readonly resolve: (value: unknown) => void
  readonly reject: (error: Error) => void
}

/** Undefined while nothing listens on the socket yet. QEMU serves one client at a time. */
export async function findQmp(path: string): Promise<Qmp | undefined> {
  const socket = connect(path)
  try {
    await once(socket, 'connect')
  } catch (error) {
    if (['ENOENT', 'ECONNREFUSED'].includes(systemErrorCode(error) ?? '')) return undefined
    throw error
  }
  const qmp = speakQmp(socket)
  await qmp.execute('qmp_capabilities') // leaves the negotiation mode; nothing else is answered before
  return qmp
}

function speakQmp(socket: Socket): Qmp {
  const pending = new Map<number, Pending>()
  const events = new Map<string, Readonly<Record<string, unknown>>>()
  let lastId = 0
  onLines(socket, (line) => {
    const message = JSON.parse(line) as QmpMessage
    if (message.event !== undefined) events.set(message.event, message.data ?? {})
    const waiting = message.id === undefined ? undefined : pending.get(message.id)
    if (message.id === undefined || waiting === undefined) return // the greeting, or an event
    pending.delete(message.id)
    if (message.error === undefined) waiting.resolve(message.return)
    else waiting.reject(new KitError('unavailable', `QEMU refuses: ${message.error.desc}`))
  })
  socket.on('error', () => {}) // 'close' follows
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()))
  socket.on('close', () => {
    for (const waiting of pending.values()) waiting.reject(new KitError('unavailable', 'QEMU has ended'))
    pending.clear()
  })
  return {
    execute(command, options) {
      lastId += 1
      const id = lastId
      socket.write(`${JSON.stringify({ execute: command, id, ...(options && { arguments: options }) })}\n`)
      return new Promise((resolve, reject) => pending.set(id, { resolve, reject }))
    },
    lastEvent: (name) => events.get(name),
    closed,
  }
}
