// The shapes a server setting's text can have, from text to typed value.

import { z } from 'zod'

import { findIpv4, type Ipv4, ipv4ToNumber, type Subnet, subnetOf } from '#lib/ipv4.ts'

/** Addresses a server may hand out: both ends belong to it. */
export interface Ipv4Pool {
  readonly first: Ipv4
  readonly last: Ipv4
}

export type Shape<Value> = z.ZodType<Value, string>

/** A shape from a function that returns undefined for text it cannot read. The message comes from the table of settings. */
function shapeOf<Value>(find: (text: string) => Value | undefined): Shape<Value> {
  return z.string().transform((text, context) => {
    const value = find(text)
    if (value !== undefined) return value
    context.addIssue({ code: 'custom', message: 'not of this shape' })
    return z.NEVER
  })
}

/** Empty text stands for "none". */
export function optional<Value>(shape: Shape<Value>): Shape<Value | undefined> {
  return z
    .literal('')
    .transform(() => undefined)
    .or(shape)
}

export function oneOf<const Choice extends string>(...choices: readonly Choice[]): Shape<Choice> {
  return shapeOf((text) => choices.find((choice) => choice === text))
}

export const boolean: Shape<boolean> = shapeOf((text) => ({ true: true, false: false })[text])

export function integer(min: number, max: number): Shape<number> {
  return shapeOf((text) => {
    const value = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN
    return value >= min && value <= max ? value : undefined
  })
}

export function matching(pattern: RegExp): Shape<string> {
  return shapeOf((text) => (pattern.test(text) ? text : undefined))
}

export const ipv4: Shape<Ipv4> = shapeOf(findIpv4)

/** Separated by blanks, newlines or commas; empty text is the empty list. */
export const ipv4List: Shape<readonly Ipv4[]> = shapeOf((text) => {
  const words = text.split(/[\s,]+/).filter((word) => word !== '')
  const addresses = words.flatMap((word) => findIpv4(word) ?? [])
  return addresses.length === words.length ? addresses : undefined
})

/** `10.77.0.100-10.77.0.199` */
export const ipv4Pool: Shape<Ipv4Pool> = shapeOf((text) => {
  const [first, last, ...rest] = text.split('-').map((end) => findIpv4(end.trim()))
  if (first === undefined || last === undefined || rest.length > 0) return undefined
  return ipv4ToNumber(first) <= ipv4ToNumber(last) ? { first, last } : undefined
})

/** `10.244.0.0/16`: the network's own address, with at least and at most so many bits. */
export function ipv4Subnet(leastBits: number, mostBits: number): Shape<Subnet> {
  return shapeOf((text) => {
    const [address = '', bits = '', ...rest] = text.split('/')
    const ip = findIpv4(address)
    const prefixBits = /^\d{1,2}$/.test(bits) ? Number(bits) : -1
    if (ip === undefined || rest.length > 0 || prefixBits < leastBits || prefixBits > mostBits)
      return undefined
    const subnet = subnetOf(ip, prefixBits)
    return subnet.network === ip ? subnet : undefined
  })
}
