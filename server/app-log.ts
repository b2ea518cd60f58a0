// The server's log: lines for people, or one JSON object a line, always on standard output.

import { pino } from 'pino'
import { default as pretty } from 'pino-pretty'

import type { Log } from '#lib/log.ts'

export interface AppLog extends Log {
  setLevel(level: string): void
}

export function createAppLog({ level, format }: { level: string; format: 'pretty' | 'json' }): AppLog {
  // Standard output is written synchronously: the last words before a crash are the ones that matter.
  const stream =
    format === 'pretty'
      ? pretty({
          colorize: process.stdout.isTTY,
          ignore: 'pid,hostname',
          translateTime: 'SYS:HH:MM:ss.l',
          sync: true,
        })
      : pino.destination({ dest: 1, sync: true })
  const logger = pino({ level, base: null }, stream)
  return {
    debug: (fields, message) => logger.debug(fields, message),
    info: (fields, message) => logger.info(fields, message),
    warn: (fields, message) => logger.warn(fields, message),
    error: (fields, message) => logger.error(fields, message),
    setLevel(next) {
      logger.level = next
    },
  }
}
