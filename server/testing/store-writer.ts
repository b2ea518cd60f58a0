// A process that writes leases for as long as it lives and prints each address once it is committed; the store's test kills it.

import { systemClock } from '#lib/clock.ts'
import { ipv4FromNumber, ipv4ToNumber, parseIpv4 } from '#lib/ipv4.ts'
import { silentLog } from '#lib/log.ts'
import { parseMac } from '#lib/mac.ts'
import { openStore } from '#store/store.ts'

const file = process.argv[2] ?? ''
const first = ipv4ToNumber(parseIpv4('10.0.0.1'))
const mac = parseMac('52:54:00:00:00:01')
const store = await openStore({ file, clock: systemClock, log: silentLog })

for (let turn = 0; ; turn += 8) {
  await Promise.all(
    Array.from({ length: 8 }, async (_, index) => {
      const ip = ipv4FromNumber(first + turn + index)
      await store.leases.put({ ip, clientKey: `mac:${mac}`, mac, expiresMs: turn, kind: 'leased' })
      process.stdout.write(`${ip}\n`)
    }),
  )
}
