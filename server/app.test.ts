// What the composition root adds to its parts: which network is served, and who has which address.

import test from 'ava'

import { parseIpv4, parseSubnet } from '#lib/ipv4.ts'
import { type Mac, parseMac } from '#lib/mac.ts'
import type { Profiles } from '#machine/ports.ts'
import type { NetworkInterface } from '#sockets/network-interface.ts'

import { Reservations } from './reservations.ts'
import { chooseNetwork } from './served-network.ts'

const eth0: NetworkInterface = {
  name: 'eth0',
  ip: parseIpv4('10.0.0.5'),
  subnet: parseSubnet('10.0.0.0/24'),
  mac: parseMac('02:00:00:00:00:05'),
}

test('chooseNetwork() takes the interface somebody named, with the address somebody set', (t) => {
  t.deepEqual(chooseNetwork({ 'dhcp/interface': 'eth0', 'dhcp/ip': undefined }, [eth0]), eth0)
  const ip = parseIpv4('10.0.0.6')
  t.deepEqual(chooseNetwork({ 'dhcp/interface': 'eth0', 'dhcp/ip': ip }, [eth0]), { ...eth0, ip })
})

for (const [name, interfaces, message, fix] of [
  [undefined, [eth0], 'Cannot serve a network: no interface is set', /there are: eth0 \(10\.0\.0\.5\/24\)$/],
  [
    'eth1',
    [eth0],
    'Cannot serve eth1: it is not there, or has no IPv4 address',
    /^choose one of these: eth0/,
  ],
  ['eth1', [], 'Cannot serve eth1: it is not there, or has no IPv4 address', /none with an IPv4 address$/],
] as const) {
  test(`chooseNetwork() refuses ${name} among ${interfaces.length}, and lists what there is`, (t) => {
    const error = t.throws<Error & { fix?: string }>(() =>
      chooseNetwork({ 'dhcp/interface': name, 'dhcp/ip': undefined }, interfaces),
    )
    t.is(error?.message, message)
    t.regex(error?.fix ?? '', fix)
  })
}

function profilesReserving(ips: Readonly<Record<Mac, string>>): Profiles {
  const macs = Object.keys(ips) as Mac[]
  return {
    profileFor: (mac) => {
      const value = ips[mac]
      const settings =
        value === undefined ? [] : ([['ip', { value, layer: 'machines', file: 'ip' }]] as const)
      return { mac, channel: 'stable', layers: [], settings: new Map(settings) }
    },
    explain: () => [],
    problems: () => [],
    roles: () => [],
    machines: () => macs,
    assignRole: async () => {},
    unassignRole: async () => {},
  }
}

test('Reservations looks both ways, and gives an address wanted twice to one machine only', (t) => {
  const [one, two, three] = ['01', '02', '03'].map((end) => parseMac(`02:00:00:00:00:${end}`)) as [
    Mac,
    Mac,
    Mac,
  ]
  const reservations = new Reservations(
    profilesReserving({ [two]: '10.0.0.9', [one]: '10.0.0.9', [three]: '10.0.0.7' }),
  )
  t.is(reservations.reservedTo(parseIpv4('10.0.0.9')), undefined, 'nothing is known before the first look')
  reservations.refresh()
  t.is(reservations.reservedTo(parseIpv4('10.0.0.9')), one)
  t.deepEqual(
    [one, two, three].map((mac) => reservations.reservationFor(mac)),
    [parseIpv4('10.0.0.9'), undefined, parseIpv4('10.0.0.7')],
  )
})
