// Which machine a person means: by its MAC, or by its host name.

import { KitError } from '#lib/errors.ts'
import type { JsonHttp } from '#lib/json-http.ts'
import { findMac, type Mac, macToPath } from '#lib/mac.ts'
import { didYouMean } from '#lib/nearest.ts'
import type { MachineView } from '#machine/ports.ts'

/** The API's path of a machine, or of something of it. */
export function machinePath(mac: Mac, what = ''): string {
  return `/api/v1/machines/${macToPath(mac)}${what}`
}

export async function listMachines(http: JsonHttp): Promise<readonly MachineView[]> {
  const answer = (await http.request('GET', '/api/v1/machines')) as { machines: readonly MachineView[] }
  return answer.machines
}

/** A MAC needs no machine that was seen. Throws KitError `invalid-input`, `not-found`, or `conflict` for a name of several. */
export async function findMachine(http: JsonHttp, text: string): Promise<Mac> {
  const mac = findMac(text)
  if (mac !== undefined) return mac
  if (!/^[a-z0-9-]{1,63}$/i.test(text)) {
    throw new KitError('invalid-input', `Cannot read a machine: ${JSON.stringify(text)}`, {
      fix: 'write its MAC as 52:54:00:12:34:56, or its host name; kateskit machines lists them',
    })
  }
  return chooseByName(await listMachines(http), text)
}

/** Exported for its tests. */
export function chooseByName(machines: readonly MachineView[], text: string): Mac {
  const name = text.toLowerCase()
  const [found, ...others] = machines.filter(({ hostname }) => hostname === name)
  if (found === undefined) {
    const names = machines.map(({ hostname }) => hostname)
    throw new KitError(
      'not-found',
      `Cannot find machine ${text}: no machine has this name${didYouMean(name, names)}`,
      {
        fix: 'kateskit machines lists those that were seen',
      },
    )
  }
  if (others.length === 0) return found.mac
  const macs = [found, ...others].map(({ mac }) => mac).join(', ')
  throw new KitError('conflict', `Cannot tell which machine ${text} is: ${macs}`, {
    fix: 'name it by its MAC',
  })
}
