// Ethernet hardware addresses: the name of a machine in text, in paths and on the wire.

declare const brand: unique symbol

/** Lower case, colon separated: `52:54:00:12:34:56`. */
export type Mac = string & { readonly [brand]: 'Mac' }

const SHAPE = /^[0-9a-f]{2}(?<separator>[:-]?)(?:[0-9a-f]{2}\k<separator>){4}[0-9a-f]{2}$/i

/** Accepts `aa:bb:…`, `aa-bb-…` and `aabb…` in either case; undefined for anything else. */
export function findMac(text: string): Mac | undefined {
  if (!SHAPE.test(text)) return undefined
  const pairs = text.toLowerCase().replace(/[:-]/g, '').match(/../g) ?? []
  return pairs.join(':') as Mac
}

/** Like `findMac`, for callers to whom anything else is an error. Throws RangeError. */
export function parseMac(text: string): Mac {
  const mac = findMac(text)
  if (mac === undefined) throw new RangeError(`Cannot read a MAC address: ${JSON.stringify(text)}`)
  return mac
}

/** The form used in file names and URLs: `52-54-00-12-34-56`. */
export function macToPath(mac: Mac): string {
  return mac.replaceAll(':', '-')
}

/** From the six bytes of `chaddr`. Throws RangeError for another length. */
export function macFromBytes(bytes: Uint8Array): Mac {
  if (bytes.length !== 6) throw new RangeError(`Cannot read a MAC address: ${bytes.length} bytes`)
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join(':') as Mac
}

export function macToBytes(mac: Mac): Uint8Array {
  return Uint8Array.from(mac.split(':'), (pair) => Number.parseInt(pair, 16))
}

/** True for group addresses (multicast and broadcast), which no machine has as its own. */
export function isGroupMac(mac: Mac): boolean {
  return (Number.parseInt(mac.slice(0, 2), 16) & 1) === 1
}
