// The shared values: addresses, bytes, queues, services.

import test from 'ava'
import fc from 'fast-check'

import { ByteReader, DecodeError, uint16Bytes, uint32Bytes } from './bytes.ts'
import { describeError, KitError, systemErrorCode } from './errors.ts'
import {
  findIpv4,
  ipv4FromBytes,
  ipv4FromNumber,
  ipv4ToBytes,
  ipv4ToNumber,
  parseIpv4,
  parseSubnet,
  subnetBroadcast,
  subnetHas,
  subnetMask,
} from './ipv4.ts'
import { createKeyedQueue } from './keyed-queue.ts'
import { findMac, isGroupMac, macFromBytes, macToBytes, macToPath, parseMac } from './mac.ts'
import { type Service, startAll, stopAll } from './service.ts'

for (const text of ['52:54:00:AB:cd:ef', '52-54-00-ab-cd-ef', '525400ABCDEF']) {
  test(`findMac() reads ${text}`, (t) => t.is(findMac(text), parseMac('52:54:00:ab:cd:ef')))
}

for (const text of [
  '',
  '52:54:00:ab:cd',
  '52:54-00:ab:cd:ef',
  '52:54:00:ab:cd:eg',
  '52:54:00:ab:cd:ef:01',
  ' 525400abcdef',
]) {
  test(`findMac() refuses ${JSON.stringify(text)}`, (t) => t.is(findMac(text), undefined))
}

test('macFromBytes() and macToBytes() undo each other', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 6, maxLength: 6 }), (bytes) => {
      t.deepEqual(macToBytes(macFromBytes(bytes)), bytes)
    }),
  )
  t.throws(() => macFromBytes(new Uint8Array(5)), { instanceOf: RangeError })
})

test('macToPath() uses dashes', (t) => t.is(macToPath(parseMac('52:54:00:ab:cd:ef')), '52-54-00-ab-cd-ef'))

test('isGroupMac() tells multicast and broadcast from a machine', (t) => {
  t.true(isGroupMac(parseMac('ff:ff:ff:ff:ff:ff')))
  t.true(isGroupMac(parseMac('01:00:5e:00:00:01')))
  t.false(isGroupMac(parseMac('02:00:00:00:00:01')))
})

for (const text of ['1.2.3', '256.0.0.1', '01.2.3.4', '1.2.3.4.5', '1.2.3.4 ', 'a.b.c.d', '']) {
  test(`findIpv4() refuses ${JSON.stringify(text)}`, (t) => t.is(findIpv4(text), undefined))
}

test('ipv4 conversions undo each other', (t) => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 0xffffffff }), (value) => {
      const ip = ipv4FromNumber(value)
      t.is(findIpv4(ip), ip)
      t.is(ipv4ToNumber(ip), value)
      t.is(ipv4FromBytes(ipv4ToBytes(ip)), ip)
    }),
  )
  t.throws(() => ipv4FromNumber(2 ** 32), { instanceOf: RangeError })
})

for (const [text, network, mask, broadcast] of [
  ['10.77.0.9/24', '10.77.0.0', '255.255.255.0', '10.77.0.255'],
  ['192.168.5.130/25', '192.168.5.128', '255.255.255.128', '192.168.5.255'],
  ['0.0.0.0/0', '0.0.0.0', '0.0.0.0', '255.255.255.255'],
  ['255.1.2.3/32', '255.1.2.3', '255.255.255.255', '255.1.2.3'],
] as const) {
  test(`parseSubnet() of ${text} has its network, mask and broadcast`, (t) => {
    const subnet = parseSubnet(text)
    t.deepEqual(
      [subnet.network, subnetMask(subnet), subnetBroadcast(subnet)],
      [network, mask, broadcast].map((ip) => parseIpv4(ip)),
    )
    t.true(subnetHas(subnet, parseIpv4(broadcast)))
  })
}

for (const text of ['10.0.0.0', '10.0.0.0/33', '10.0.0.0/', '10.0.0/8', '10.0.0.0/8/8', '10.0.0.0/-1']) {
  test(`parseSubnet() refuses ${text}`, (t) => {
    t.throws(() => parseSubnet(text), { instanceOf: RangeError })
  })
}

test('ByteReader throws DecodeError past the end and nothing else', (t) => {
  const reader = new ByteReader(Uint8Array.of(1, 2, 3, 4, 5, 6, 7))
  t.deepEqual([reader.uint8('a'), reader.uint16('b'), reader.uint32('c')], [1, 0x0203, 0x04050607])
  t.throws(() => reader.uint8('d'), { instanceOf: DecodeError, message: /^d: 1 bytes wanted at 7, 0 left$/ })
})

test('uint16Bytes() and uint32Bytes() are big-endian and unsigned', (t) => {
  t.deepEqual(uint16Bytes(0x0102), Uint8Array.of(1, 2))
  t.deepEqual(uint32Bytes(0xfffefdfc), Uint8Array.of(0xff, 0xfe, 0xfd, 0xfc))
})

test('createKeyedQueue() keeps order per key, side by side across keys, and survives a failure', async (t) => {
  const queue = createKeyedQueue<string>()
  const order: string[] = []
  const gate = Promise.withResolvers<void>()
  const first = queue.run('a', async () => {
    await gate.promise
    order.push('a1')
    throw new Error('a1 failed')
  })
  const second = queue.run('a', async () => order.push('a2'))
  await queue.run('b', async () => order.push('b1'))
  gate.resolve()
  await t.throwsAsync(first, { message: 'a1 failed' })
  await second
  t.deepEqual(order, ['b1', 'a1', 'a2'])
})

function recordingService(name: string, log: string[], fail: 'start' | 'stop' | 'never' = 'never'): Service {
  const act = (verb: 'start' | 'stop') => async () => {
    log.push(`${verb} ${name}`)
    if (fail === verb) throw new Error(`${name} cannot ${verb}`)
  }
  return { name, start: act('start'), stop: act('stop') }
}

test('startAll() stops what it started, last first, when one fails', async (t) => {
  const log: string[] = []
  const services = [
    recordingService('a', log),
    recordingService('b', log, 'start'),
    recordingService('c', log),
  ]
  await t.throwsAsync(startAll(services), { message: 'b cannot start' })
  t.deepEqual(log, ['start a', 'start b', 'stop b', 'stop a'])
})

test('stopAll() stops the others when one fails, and says so', async (t) => {
  const log: string[] = []
  await t.throwsAsync(stopAll([recordingService('a', log), recordingService('b', log, 'stop')]), {
    instanceOf: AggregateError,
  })
  t.deepEqual(log, ['stop b', 'stop a'])
})

test('describeError() and systemErrorCode() cope with anything thrown', (t) => {
  t.is(describeError(new KitError('conflict', 'Cannot do it: no')), 'Cannot do it: no')
  t.is(describeError('text'), 'text')
  t.is(systemErrorCode(Object.assign(new Error('x'), { code: 'ENOENT' })), 'ENOENT')
  t.is(systemErrorCode(new Error('x')), undefined)
})
