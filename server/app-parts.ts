// What the server is made of: the adapters, the domain and the facts of this start.

import type { Certificates } from '#certs/certificates.ts'
import type { BootScripts } from '#http/boot-scripts.ts'
import type { Clock } from '#lib/clock.ts'
import type { Log } from '#lib/log.ts'
import type { Service } from '#lib/service.ts'
import type { ImageStore, Images } from '#machine/ports.ts'
import type { Overlays } from '#overlays/overlays.ts'
import type { SecretFiles } from '#overlays/secrets.ts'
import type { ProfileTree } from '#profiles/tree.ts'
import type { SecretsKeyService } from '#sealing/secrets-key.ts'
import type { NetworkInterface } from '#sockets/network-interface.ts'
import type { Store } from '#store/store.ts'
import type { TpmVouchers } from '#tpm/verifier.ts'

import type { ClusterAdapters } from './app-cluster.ts'
import type { Config } from './config.ts'
import type { Domain } from './domain.ts'
import type { KnownMachines } from './known-machines.ts'
import type { Reservations } from './reservations.ts'

export interface AppOptions {
  readonly config: Config
  readonly version: string
  readonly clock: Clock
  readonly log: Log
}

export interface Adapters extends ClusterAdapters {
  readonly tree: ProfileTree
  readonly overlays: Overlays
  readonly secretsKey: SecretsKeyService
  readonly secrets: SecretFiles
  readonly images: ImageStore & Images & Service
}

/** What all services are made of. */
export interface Parts extends AppOptions, Adapters, Domain {
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
