// The services of the server, each made of its parts: the adapters that run, and the front doors.

import { createDhcpService, type DhcpService } from '#dhcp/service.ts'
import { createHttpService } from '#http/http-service.ts'
import type { ListenOn } from '#http/listener.ts'
import { describeError } from '#lib/errors.ts'
import type { Ipv4 } from '#lib/ipv4.ts'
import type { Service } from '#lib/service.ts'
import { hostnameOf } from '#machine/boot-plan.ts'
import { LOADERS } from '#machine/loaders.ts'
import { createMdnsService } from '#mdns/advertise.ts'
import { findNeighbour } from '#sockets/neighbours.ts'
import { openUdp } from '#sockets/udp.ts'
import { autoexecRoute, firstRoute, loaderRoute } from '#tftp/routes.ts'
import { createTftpService } from '#tftp/service.ts'

import type { Parts } from './app-parts.ts'
import { createProfileFollower } from './profile-follower.ts'

/** In the order they start: what others ask comes before those who are asked from outside. */
export function createServices(parts: Parts): readonly Service[] {
  const { config, tree, images, rollouts, releaseFollower, profilesChanged } = parts
  const dhcp = createDhcp(parts)
  if (dhcp !== undefined) parts.known.useLeases((ip) => dhcp.leasedTo(ip))
  return [
    parts.secretsKey,
    createProfileFollower({ ...parts, onFollowed: profilesChanged }),
    tree,
    images,
    parts.clusterKeys,
    parts.snapshots,
    parts.registry,
    ...parts.clusterServices,
    releaseFollower,
    rollouts,
    createHttp(parts, dhcp),
    parts.certificates,
    createTftp(parts),
    ...(dhcp === undefined ? [] : [dhcp]),
    ...(config.values['mdns/enabled'] ? [createMdns(parts)] : []),
  ]
}

function createHttp(parts: Parts, dhcp: DhcpService | undefined): Service {
  const { config, network, store, desk, roster, tree, overlays, images, scripts, clock, log, version } = parts
  const { releases, powerwashes, known, secrets, secretsKey, secretsDesk } = parts
  const { values } = config
  const extra = values['http/extra-socket']
  const address = values['http/address'] ?? network.ip
  const listen: ListenOn[] = [
    { address, port: values['http/port'] },
    { address, port: values['https/port'], tls: parts.certificates },
    { socketFile: values['http/control-socket'], isTrusted: true },
    ...(extra === undefined ? [] : [{ socketFile: extra, isTrusted: false }]),
  ]
  return createHttpService({
    listen,
    desk,
    views: roster,
    profiles: tree,
    problems: () => [...tree.problems(), ...overlays.problems(), ...secrets.problems()],
    secretFiles: secrets,
    secretsKey,
    secretsDesk,
    nodeDesk: parts.nodeDesk,
    clusters: parts.clusters,
    registry: parts.registry,
    bundles: overlays,
    images,
    imageStore: images,
    releases,
    powerwashes,
    identities: parts.identities,
    identityDesk: parts.identityDesk,
    scripts,
    events: store.events,
    leases: store.leases,
    tokens: store.tokens,
    audit: store.audit,
    serverConfig: () => config.explain(),
    isFleetLockOn: values['fleetlock/enabled'],
    connectionsPerAddress: values['http/connections-per-address'],
    isKnownAddress: (ip) => known.hasAddress(ip),
    onClientKey: (key, ip) => {
      if (parts.identityDesk.identityOfKey(key) !== undefined) known.noteAddress(ip)
    },
    onScriptSent: (mac) => dhcp?.bootScriptFetched(mac),
    ca: parts.certificates.ca,
    challengeAnswer: (token) => parts.certificates.challengeAnswer(token),
    version,
    clock,
    log,
  })
}

function createTftp({ config, network, images, scripts, store, known, clock, log }: Parts): Service {
  const noteLoader = async (ip: Ipv4, name: string, sizeBytes: number) => {
    const mac = await findNeighbour(ip)
    await store.events.append({
      kind: 'loader-sent',
      ...(mac && { mac }),
      message: `${name} to ${ip}`,
      data: { name, address: ip, sizeBytes },
    })
  }
  return createTftpService({
    port: config.values['tftp/port'],
    address: network.ip,
    networkInterface: network.name,
    singlePort: config.values['tftp/single-port'],
    lookup: firstRoute([autoexecRoute(() => scripts.autoexec()), loaderRoute(images)]),
    isKnownAddress: (ip) => known.hasAddress(ip),
    onSent: (ip, name, sizeBytes) => {
      if (!Object.hasOwn(LOADERS, name)) return // iPXE's own script says nothing of a machine
      noteLoader(ip, name, sizeBytes).catch((error: unknown) => {
        log.error({ err: describeError(error), ip, name }, 'Cannot write down that a loader was sent')
      })
    },
    openUdp,
    clock,
    log,
  })
}

function createDhcp(parts: Parts): DhcpService | undefined {
  const { config, network, store, roster, tree, reservations, known, baseUrl, clock, log } = parts
  const { values } = config
  const mode = values['dhcp/mode']
  if (mode === 'off') return undefined
  const { 'dhcp/pool': pool, 'dhcp/router': router, 'dhcp/domain': domain } = values
  return createDhcpService({
    mode,
    networkInterface: network.name,
    serverIp: network.ip,
    subnet: network.subnet,
    ...(pool && { pool }),
    ...(router && { router }),
    ...(domain && { domain }),
    dns: values['dhcp/dns'],
    leaseSeconds: values['dhcp/lease-seconds'],
    unknownLeaseSeconds: values['dhcp/unknown-lease-seconds'],
    keptPercent: values['dhcp/kept-percent'],
    isKnown: (mac) => known.has(mac),
    reservationFor: (mac) => reservations.reservationFor(mac),
    reservedTo: (ip) => reservations.reservedTo(ip),
    hostnameFor: (mac) => {
      const profile = tree.profileFor(mac)
      return profile.role === undefined ? undefined : hostnameOf(mac, profile)
    },
    httpBaseUrl: baseUrl,
    leases: store.leases,
    events: store.events,
    sightings: roster,
    openUdp,
    clock,
    log,
  })
}

function createMdns({ config, network, certificates, version, id, log }: Parts): Service {
  const { 'mdns/name': name, 'http/port': port, 'https/port': tlsPort } = config.values
  const { fingerprint } = certificates.authority
  return createMdnsService({ name, ip: network.ip, port, tlsPort, fingerprint, version, id, log })
}
