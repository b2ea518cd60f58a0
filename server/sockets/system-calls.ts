// The Linux calls behind a UDP socket that node:dgram has no words for: socket(7), ip(7).

import { constants, endianness } from 'node:os'

import { ANY_IPV4, type Ipv4, ipv4ToBytes } from '#lib/ipv4.ts'
import type { UdpOptions } from '#lib/udp.ts'

// <sys/socket.h> and <asm-generic/socket.h>, the same on x86-64 and arm64.
const AF_INET = 2
const SOCK_DGRAM = 2
const SOCK_NONBLOCK = 0o4000
const SOCK_CLOEXEC = 0o2000000
const SOL_SOCKET = 1
const SO_RCVBUF = 8
const SO_BINDTODEVICE = 25
const SO_RCVBUFFORCE = 33

/** A refused call, shaped like Node's own system errors so that both are told apart by `code`. */
class SystemCallError extends Error {
  readonly code: string
  readonly syscall: string

  constructor(syscall: string, errno: number) {
    const code = errnoName(errno)
    super(`${syscall}: ${code}`)
    this.name = 'SystemCallError'
    this.code = code
    this.syscall = syscall
  }
}

/**
 * A bound, non-blocking UDP socket, as a file descriptor the caller closes. Throws SystemCallError.
 *
 * SO_REUSEADDR stays off on purpose: UDP has no TIME_WAIT to step over, and with it two DHCP servers on one
 * interface would bind without a word and share the packets at random. Servers on other interfaces do not
 * collide with this one, because both sides are tied to their device.
 */
export async function openBoundSocket(options: UdpOptions): Promise<number> {
  const calls = await loadSystemCalls()
  const descriptor = calls.socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
  if (descriptor < 0) throw calls.failure('socket')
  try {
    const { networkInterface, receiveBufferBytes } = options
    if (networkInterface !== undefined) {
      const name = Buffer.from(`${networkInterface}\0`)
      calls.set(descriptor, SO_BINDTODEVICE, name)
    }
    if (receiveBufferBytes !== undefined) {
      const size = hostInt32(receiveBufferBytes)
      // Beyond rmem_max takes CAP_NET_ADMIN; without it take what the kernel gives.
      if (!calls.trySet(descriptor, SO_RCVBUFFORCE, size)) calls.set(descriptor, SO_RCVBUF, size)
    }
    const address = socketAddress(options.address ?? ANY_IPV4, options.port)
    if (calls.bind(descriptor, address, address.length) !== 0) throw calls.failure('bind')
    return descriptor
  } catch (error) {
    calls.close(descriptor)
    throw error
  }
}

/** Loads libc anew each time, which costs microseconds: a server opens a handful of such sockets in its life. */
async function loadSystemCalls() {
  // Imported here so that a server that is tied to no interface runs where koffi has no binary.
  const { default: koffi } = await import('koffi')
  const libc = koffi.load(null)
  const setsockopt = libc.func(
    'int setsockopt(int fd, int level, int name, const void *value, uint32_t size)',
  )
  const failure = (syscall: string) => new SystemCallError(syscall, koffi.errno())
  const trySet = (descriptor: number, name: number, value: Uint8Array): boolean =>
    setsockopt(descriptor, SOL_SOCKET, name, value, value.length) === 0
  return {
    socket: libc.func('int socket(int domain, int type, int protocol)'),
    bind: libc.func('int bind(int fd, const void *address, uint32_t size)'),
    close: libc.func('int close(int fd)'),
    failure,
    trySet,
    set(descriptor: number, name: number, value: Uint8Array): void {
      if (!trySet(descriptor, name, value)) throw failure('setsockopt')
    },
  }
}

/** struct sockaddr_in (ip(7)): family in host order, port and address in network order, eight bytes of nothing. */
function socketAddress(ip: Ipv4, port: number): Uint8Array {
  const bytes = Buffer.alloc(16)
  bytes[endianness() === 'LE' ? 0 : 1] = AF_INET
  bytes.writeUInt16BE(port, 2)
  bytes.set(ipv4ToBytes(ip), 4)
  return bytes
}

function hostInt32(value: number): Uint8Array {
  return new Uint8Array(Int32Array.of(value).buffer)
}

function errnoName(errno: number): string {
  const found = Object.entries(constants.errno).find(([, number]) => number === errno)
  return found?.[0] ?? `errno ${errno}` // ENODEV and the like are all in the table
}
