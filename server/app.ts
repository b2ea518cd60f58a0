// The composition root: the only place where adapters meet the front doors.

import { randomUUID } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

import { type Certificates, type NamedCertificate, openCertificates } from '#certs/certificates.ts'
import { createDhcpService, type DhcpService } from '#dhcp/service.ts'
import { type BootScripts, loadBootScripts } from '#http/boot-scripts.ts'
import { createHttpService } from '#http/http-service.ts'
import type { ListenOn } from '#http/listener.ts'
import { createImageStore } from '#images/store.ts'
import { writeFileAtomically } from '#lib/atomic-file.ts'
import type { Clock } from '#lib/clock.ts'
import { describeError } from '#lib/errors.ts'
import { ANY_IPV4, type Ipv4 } from '#lib/ipv4.ts'
import type { Log } from '#lib/log.ts'
import { type Service, startAll, stopAll } from '#lib/service.ts'
import { hostnameOf, type ServerWords } from '#machine/boot-plan.ts'
import { LOADERS } from '#machine/loaders.ts'
import type { ImageStore, Images } from '#machine/ports.ts'
import { createMdnsService, mdnsHost } from '#mdns/advertise.ts'
import { createOverlays, type Overlays } from '#overlays/overlays.ts'
import { createSecretFiles, type SecretFiles } from '#overlays/secrets.ts'
import { createProfileTree, type ProfileTree } from '#profiles/tree.ts'
import { listSecretTree } from '#sealing/secret-tree.ts'
import { createSecretsKey, type SecretsKeyService } from '#sealing/secrets-key.ts'
import { findNeighbour } from '#sockets/neighbours.ts'
import type { NetworkInterface } from '#sockets/network-interface.ts'
import { openUdp } from '#sockets/udp.ts'
import { openStore, type Store } from '#store/store.ts'
import { autoexecRoute, firstRoute, loaderRoute } from '#tftp/routes.ts'
import { createTftpService } from '#tftp/service.ts'
import { createTpmVerifier, type TpmVouchers } from '#tpm/verifier.ts'

import type { Config } from './config.ts'
import { createDomain, type Domain } from './domain.ts'
import { KnownMachines } from './known-machines.ts'
import { createProfileFollower } from './profile-follower.ts'
import { Reservations } from './reservations.ts'
import { findServedNetwork } from './served-network.ts'
import { serverNames } from './server-names.ts'

const SCRIPT_TEMPLATES = fileURLToPath(new URL('../boot/ipxe', import.meta.url))

export interface AppOptions {
  readonly config: Config
  readonly version: string
  readonly clock: Clock
  readonly log: Log
}

export interface App {
  /** What machines reach the server by; no slash at the end. */
  readonly baseUrl: string
  /** Where people and programs reach the API; the same. */
  readonly apiUrl: string
  readonly networkInterface: string
  hasTokens(): Promise<boolean>
  /** The secret of a new admin token: shown once, stored nowhere. */
  makeFirstToken(): Promise<string>
  start(): Promise<void>
  /** Waits for a start that is under way. */
  stop(): Promise<void>
}

interface Adapters {
  readonly tree: ProfileTree
  readonly overlays: Overlays
  readonly secretsKey: SecretsKeyService
  readonly secrets: SecretFiles
  readonly images: ImageStore & Images & Service
}

/** What all parts are made of. */
interface Parts extends AppOptions, Adapters, Domain {
  readonly network: NetworkInterface
  readonly baseUrl: string
  readonly apiUrl: string
  /** Tells this server from others of the same name; it stays the same over restarts. */
  readonly id: string
  readonly certificates: Certificates
  readonly tpm: TpmVouchers
  readonly store: Store
  readonly reservations: Reservations
  readonly known: KnownMachines
  readonly scripts: BootScripts
}

/** Opens the database; `stop` closes it, also when `start` was never called. Throws KitError, ConfigError. */
export async function createApp(options: AppOptions): Promise<App> {
  const { config, clock, log } = options
  const network = await findServedNetwork(config)
  const ip = reachableIp(config, network.ip)
  const baseUrl = `http://${ip}:${config.values['http/port']}`
  const tlsUrl = `https://${ip}:${config.values['https/port']}`
  const id = await serverId(join(config.values['state/directory'], 'server-id'))
  const store = await openStore({ file: join(config.values['state/directory'], 'kateskit.db'), clock, log })
  try {
    const adapters = createAdapters(options, store)
    const named = namedCertificate(config)
    const certificates = await openCertificates({
      directory: config.values['keys/directory'],
      ...(named !== undefined && { named }),
      names: () => serverNames(config.values['http/address'] ?? network.ip, mdnsHost(id)),
      ...{ events: store.events, clock, log },
    })
    const tpm = createTpmVerifier({
      ekList: config.values['identity/ek-list'],
      ekCas: config.values['identity/ek-cas'],
      ...{ clock, log },
    })
    const server: ServerWords = { baseUrl, tlsUrl, caFingerprint: certificates.authority.fingerprint }
    const scripts = await loadBootScripts(SCRIPT_TEMPLATES, server)
    const domain = createDomain({
      ...{ ...adapters, store, clock, log, server },
      authority: certificates.authority,
      tpm,
      keepImages: config.values['images/keep'],
    })
    const reservations = new Reservations(adapters.tree)
    const known = new KnownMachines({
      ...{ profiles: adapters.tree, roster: domain.roster, clock },
      hasIdentity: (mac) => domain.identities.find(mac) !== undefined,
    })
    const parts = {
      ...options,
      ...adapters,
      ...domain,
      network,
      baseUrl,
      apiUrl: `${tlsUrl}/api/v1`,
      id,
      certificates,
      tpm,
      scripts,
      store,
      reservations,
      known,
    }
    return composeApp(parts, createServices(parts))
  } catch (error) {
    await store.close()
    throw error
  }
}

function composeApp(
  { loadDomain, store, tpm, network, baseUrl, apiUrl, version }: Parts,
  services: readonly Service[],
): App {
  const { tokens, events } = store
  let starting: Promise<void> | undefined
  const start = async () => {
    await loadDomain()
    await tpm.tellProblems()
    await startAll(services)
    const message = `version ${version} answers on ${network.name} at ${baseUrl}`
    await events.append({ kind: 'server-started', message })
  }
  return {
    baseUrl,
    apiUrl,
    networkInterface: network.name,
    hasTokens: async () => (await tokens.list()).length > 0,
    makeFirstToken: () => makeFirstToken(store),
    start: () => {
      starting = start()
      return starting
    },
    async stop() {
      // What is half started could not be stopped.
      const hasStarted = await starting?.then(
        () => true,
        () => false,
      )
      try {
        await stopAll(services)
        if (hasStarted)
          await events.append({ kind: 'server-stopped', message: 'the server was asked to stop' })
      } finally {
        await store.close()
      }
    },
  }
}

async function makeFirstToken({ tokens, events, audit }: Store): Promise<string> {
  const [name, role] = ['first admin', 'admin'] as const
  const { info, secret } = await tokens.make({ name, role })
  const detail = `name=${name} role=${role}`
  await audit.append({ actor: 'server', action: 'token-made', target: info.id, outcome: 'done', detail })
  const message = `${role} token ${name} made at the first start`
  await events.append({ kind: 'token-made', message, data: { token: info.id, role } })
  return secret
}

/** Machines cannot reach "any address". */
function reachableIp(config: Config, networkIp: Ipv4): Ipv4 {
  const address = config.values['http/address']
  return address === undefined || address === ANY_IPV4 ? networkIp : address
}

/** `checkTogether` has seen to it that there is one source at most. */
function namedCertificate({ values }: Config): NamedCertificate | undefined {
  const { 'https/name': name, 'https/certificate': certificate, 'https/key': key } = values
  const { 'https/acme-directory': directoryUrl, 'https/acme-email': email } = values
  if (name === undefined) return undefined
  if (certificate !== undefined && key !== undefined) return { name, files: { certificate, key } }
  return directoryUrl === undefined ? undefined : { name, acme: { directoryUrl, email } }
}

function createAdapters({ config, clock, log }: AppOptions, { events }: Store): Adapters {
  const { values } = config
  const tree = createProfileTree({ directory: values['profiles/directory'], events, log, clock })
  const overlays = createOverlays({
    directory: values['bundles/directory'],
    sources: { layersFor: (mac) => tree.rootsFor(mac) },
    events,
    log,
  })
  const secretsKey = createSecretsKey({
    directory: values['keys/directory'],
    findSealed: async () => (await listSecretTree(values['profiles/directory'])).sealed[0],
    log,
  })
  const secrets = createSecretFiles({
    sources: { layersFor: (mac) => tree.rootsFor(mac) },
    ...{ key: secretsKey, events, log },
  })
  const importAtStart = values['images/import']
  const images = createImageStore({
    directory: values['images/directory'],
    keysDirectory: values['keys/directory'],
    ...(importAtStart !== undefined && { importAtStart }),
    events,
    clock,
    log,
  })
  return { tree, overlays, secretsKey, secrets, images }
}

/** In the order they start: what others ask comes before those who are asked from outside. */
function createServices(parts: Parts): readonly Service[] {
  const { config, tree, images, rollouts, releaseFollower, profilesChanged } = parts
  const dhcp = createDhcp(parts)
  if (dhcp !== undefined) parts.known.useLeases((ip) => dhcp.leasedTo(ip))
  return [
    parts.secretsKey,
    createProfileFollower({ ...parts, onFollowed: profilesChanged }),
    tree,
    images,
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

async function serverId(file: string): Promise<string> {
  const known = await readFile(file, 'utf8').catch(() => '')
  if (known.trim() !== '') return known.trim()
  const made = randomUUID()
  await writeFileAtomically(file, `${made}\n`)
  return made
}
