// Preloaded into a server (node --import): its wall clock goes so many days late. TLS goes by the true time, so certificates that
// it makes count as long as they are good at both.

import { readFileSync } from 'node:fs'

const DAY_MS = 86_400_000

const { CLOCK_BEHIND_FILE: file } = process.env
const behindMs = file === undefined ? 0 : Number(readFileSync(file, 'utf8')) * DAY_MS
const TrueDate = Date

globalThis.Date = new Proxy(TrueDate, {
  construct: (target, args, self) =>
    Reflect.construct(target, args.length === 0 ? [TrueDate.now() - behindMs] : args, self) as Date,
  get: (target, name, self) =>
    name === 'now' ? () => TrueDate.now() - behindMs : (Reflect.get(target, name, self) as unknown),
})
