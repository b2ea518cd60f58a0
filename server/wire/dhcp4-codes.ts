// The numbers of DHCPv4: ports, option codes and message types, each with where it is defined.

/** RFC 2131 §4.1; 4011 is the PXE boot server's (PXE 2.1 §2.2.1). */
export const DHCP_PORT = { server: 67, client: 68, pxe: 4011 } as const

export const BOOTP_OP = { request: 1, reply: 2 } as const
export type BootpOp = (typeof BOOTP_OP)[keyof typeof BOOTP_OP]

/** IANA "Hardware Types"; the only one whose addresses are a `Mac` here. */
export const HARDWARE_ETHERNET = 1

/** RFC 2132 §9.6. */
export const MESSAGE_TYPE = {
  discover: 1,
  offer: 2,
  request: 3,
  decline: 4,
  ack: 5,
  nak: 6,
  release: 7,
  inform: 8,
} as const
export type MessageType = (typeof MESSAGE_TYPE)[keyof typeof MESSAGE_TYPE]

export const OPTION = {
  pad: 0, // RFC 2132 §3.1
  subnetMask: 1, // RFC 2132 §3.3
  router: 3, // RFC 2132 §3.5
  dnsServer: 6, // RFC 2132 §3.8
  hostName: 12, // RFC 2132 §3.14
  domainName: 15, // RFC 2132 §3.17
  interfaceMtu: 26, // RFC 2132 §5.1
  broadcastAddress: 28, // RFC 2132 §5.3
  ntpServer: 42, // RFC 2132 §8.3
  vendorSpecific: 43, // RFC 2132 §8.4
  requestedIp: 50, // RFC 2132 §9.1
  leaseSeconds: 51, // RFC 2132 §9.2
  overload: 52, // RFC 2132 §9.3
  messageType: 53, // RFC 2132 §9.6
  serverId: 54, // RFC 2132 §9.7
  parameterList: 55, // RFC 2132 §9.8
  message: 56, // RFC 2132 §9.9
  maxMessageBytes: 57, // RFC 2132 §9.10
  renewSeconds: 58, // RFC 2132 §9.11 (T1)
  rebindSeconds: 59, // RFC 2132 §9.12 (T2)
  vendorClass: 60, // RFC 2132 §9.13
  clientId: 61, // RFC 2132 §9.14
  tftpServerName: 66, // RFC 2132 §9.4
  bootFileName: 67, // RFC 2132 §9.5
  userClass: 77, // RFC 3004
  relayAgent: 82, // RFC 3046
  architecture: 93, // RFC 4578 §2.1
  networkInterface: 94, // RFC 4578 §2.2
  machineId: 97, // RFC 4578 §2.3
  subnetSelection: 118, // RFC 3011
  domainSearch: 119, // RFC 3397
  classlessRoutes: 121, // RFC 3442
  ipxe: 175, // Etherboot's encapsulated options, ipxe.org/howto/dhcpd
  end: 255, // RFC 2132 §3.2
} as const

/** Which BOOTP fields hold options: the value of option 52 (RFC 2132 §9.3), a bit set. */
export const OVERLOAD = { bootFile: 1, serverName: 2 } as const
