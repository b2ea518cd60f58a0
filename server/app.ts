// The composition root: the only place where adapters meet the front doors.

import { randomUUID } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

import { type NamedCertificate, openCertificates } from '#certs/certificates.ts'
import { loadBootScripts } from '#http/boot-scripts.ts'
import { createImageStore } from '#images/store.ts'
import { writeFileAtomically } from '#lib/atomic-file.ts'
import { ANY_IPV4, type Ipv4 } from '#lib/ipv4.ts'
import { type Service, startAll, stopAll } from '#lib/service.ts'
import type { ServerWords } from '#machine/boot-plan.ts'
import { mdnsHost } from '#mdns/advertise.ts'
import { createOverlays } from '#overlays/overlays.ts'
import { createSecretFiles } from '#overlays/secrets.ts'
import { createProfileTree } from '#profiles/tree.ts'
import { listSecretTree } from '#sealing/secret-tree.ts'
import { createSecretsKey } from '#sealing/secrets-key.ts'
import { openStore, type Store } from '#store/store.ts'
import { createTpmVerifier } from '#tpm/verifier.ts'

import { createClusterAdapters } from './app-cluster.ts'
import { bundleLayers } from './app-overlays.ts'
import type { Adapters, AppOptions, Parts } from './app-parts.ts'
import { createServices } from './app-services.ts'
import type { Config } from './config.ts'
import { createDomain } from './domain.ts'
import { KnownMachines } from './known-machines.ts'
import { Reservations } from './reservations.ts'
import { findServedNetwork } from './served-network.ts'
import { serverNames } from './server-names.ts'

const SCRIPT_TEMPLATES = fileURLToPath(new URL('../boot/ipxe', import.meta.url))

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

function createAdapters({ config, version, clock, log }: AppOptions, { events }: Store): Adapters {
  const { values } = config
  const tree = createProfileTree({ directory: values['profiles/directory'], events, log, clock })
  const importAtStart = values['images/import']
  const images = createImageStore({
    directory: values['images/directory'],
    keysDirectory: values['keys/directory'],
    ...(importAtStart !== undefined && { importAtStart }),
    events,
    clock,
    log,
  })
  const overlays = createOverlays({
    directory: values['bundles/directory'],
    sources: bundleLayers(tree, images),
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
  const ofCluster = createClusterAdapters({ config, version, clock, log }, events)
  return { ...ofCluster, tree, overlays, secretsKey, secrets, images }
}

async function serverId(file: string): Promise<string> {
  const known = await readFile(file, 'utf8').catch(() => '')
  if (known.trim() !== '') return known.trim()
  const made = randomUUID()
  await writeFileAtomically(file, `${made}\n`)
  return made
}
