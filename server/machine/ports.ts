// The interfaces through which the front doors and the domain reach the outside. Adapters implement them.

import type { Ipv4 } from '#lib/ipv4.ts'
import type { Mac } from '#lib/mac.ts'

import type { BootPlan } from './boot-plan.ts'
import type { Event, NewEvent } from './event.ts'
import type { CheckInPhase } from './lifecycle.ts'
import type { Boot, Firmware, Machine } from './machine.ts'
import type { Profile } from './profile.ts'

export interface MachineStore {
  find(mac: Mac): Promise<Machine | undefined>
  /** By MAC, ascending. */
  list(): Promise<readonly Machine[]>
  /** Inserts or replaces; committed when it resolves. */
  save(machine: Machine): Promise<void>
  /** Makes it the latest of its machine's boots, by moving `mintedMs` up when the clock was set back; returns it so. */
  saveBoot(boot: Boot): Promise<Boot>
  findBoot(id: string): Promise<Boot | undefined>
  /** Forgets a machine and its boots. */
  remove(mac: Mac): Promise<void>
}

export interface EventQuery {
  readonly mac?: Mac
  /** Only events with a greater id, oldest first. Without it: the newest `limit`, oldest first. */
  readonly afterId?: number
  readonly limit: number
}

export interface EventLog {
  /** Committed when it resolves; subscribers hear of it then. */
  append(event: NewEvent): Promise<Event>
  list(query: EventQuery): Promise<readonly Event[]>
  /** Called once per event in order of id; the returned function unsubscribes. A listener must not throw. */
  subscribe(listener: (event: Event) => void): () => void
}

/** An address promised to a client. */
export interface Lease {
  readonly ip: Ipv4
  /** Option 61 as hex, or `mac:<mac>` for a client that sent none (RFC 2131 §4.2). */
  readonly clientKey: string
  readonly mac: Mac
  readonly hostname?: string
  /** Milliseconds since 1970. */
  readonly expiresMs: number
  /** `declined`: found in use by the client; kept away from everybody until it expires (then `clientKey` means nothing). */
  readonly kind: 'leased' | 'declined'
}

export interface LeaseStore {
  /** Expired ones too: a client that comes back gets its old address. */
  list(): Promise<readonly Lease[]>
  /** Replaces what is known of `lease.ip`; on disk when it resolves, and not before. */
  put(lease: Lease): Promise<void>
  remove(ip: Ipv4): Promise<void>
}

export const TOKEN_ROLES = ['admin'] as const
export type TokenRole = (typeof TOKEN_ROLES)[number]

export interface TokenInfo {
  readonly id: string
  readonly name: string
  readonly role: TokenRole
  readonly createdMs: number
}

export interface TokenStore {
  /** Makes a token; `secret` is not stored and cannot be had again. */
  make(name: string, role: TokenRole): Promise<{ readonly info: TokenInfo; readonly secret: string }>
  /** What the secret stands for, or undefined. Takes the same time either way. */
  verify(secret: string): Promise<TokenInfo | undefined>
  list(): Promise<readonly TokenInfo[]>
}

/** One line of `kateskit config explain`. */
export interface ExplainedValue {
  readonly key: string
  readonly value: string
  /** The file, environment variable or `default` it came from. */
  readonly source: string
}

export interface ProfileProblem {
  readonly layer: string
  readonly file: string
  readonly message: string
}

export interface Profiles {
  /** Never throws: a layer that cannot be read counts with its last good value. */
  profileFor(mac: Mac): Profile
  explain(mac: Mac): readonly ExplainedValue[]
  /** Everything wrong in the tree right now. */
  problems(): readonly ProfileProblem[]
  /** The names under `roles/`, ascending. */
  roles(): readonly string[]
  /** MACs with a folder under `machines/`. */
  machines(): readonly Mac[]
  /** Writes `machines/<mac>/role`; in force when it resolves. Throws KitError for a role that has no folder. */
  assignRole(mac: Mac, role: string): Promise<void>
}

/** The overlay bundle of one machine: a content-addressed tar. */
export interface Bundle {
  /** sha256 of the archive, hex. */
  readonly digest: string
  readonly sizeBytes: number
  /** Where the archive lies on the server. */
  readonly file: string
}

/** One line of `kateskit overlay explain`. */
export interface ExplainedFile {
  /** Absolute on the machine: `/etc/motd`. */
  readonly path: string
  readonly layer: string
  readonly kind: 'file' | 'directory' | 'symlink' | 'delete'
  /** Octal text such as `0644`; of no meaning for `delete`. */
  readonly mode: string
  readonly uid: number
  readonly gid: number
  /** Layers whose version of this path is hidden by this one, lowest first. */
  readonly hides: readonly string[]
}

export interface Bundles {
  /** The bundle for the machine's layers as they are now. A layer in error counts with its last good content. */
  bundleFor(mac: Mac): Promise<Bundle>
  explain(mac: Mac): Promise<readonly ExplainedFile[]>
  /** By digest, for as long as it is kept (the current and the previous ones of a machine). */
  findBundle(digest: string): Promise<Bundle | undefined>
}

export interface ImageFile {
  readonly name: string
  readonly sizeBytes: number
  /** Hex. */
  readonly sha256: string
  /** Where it lies on the server. */
  readonly file: string
}

export interface Image {
  readonly version: string
  /** Debian's word: `amd64`, `arm64`. */
  readonly arch: string
  /** By name: `vmlinuz`, `initrd.img`, `root.squashfs`, and the loaders `ipxe/snponly.efi` and so on. */
  readonly files: ReadonlyMap<string, ImageFile>
}

export interface Images {
  /** The image that machines get; undefined when none is there. */
  current(): Image | undefined
  find(version: string): Image | undefined
}

/** What a front door noticed of a machine, besides its MAC. */
export interface Sighting {
  readonly firmware?: Firmware
  readonly uuid?: string
  readonly address?: Ipv4
}

export interface Sightings {
  /** A MAC was seen on the network. Makes it `discovered` when nobody knew it; changes no state otherwise. Cheap to call per packet. */
  seen(mac: Mac, sighting: Sighting): Promise<void>
}

export interface BootOffer {
  readonly boot: Boot
  readonly plan: BootPlan
}

/** Progress of a boot; changes no state. */
export interface StepReport {
  readonly boot: string
  readonly step: string
  readonly status: 'started' | 'done' | 'failed'
  readonly seconds?: number
  readonly message?: string
  readonly log?: string
}

export interface CheckIn {
  readonly boot: string
  readonly phase: CheckInPhase
  readonly image?: string
  readonly bundle?: string
  readonly address?: Ipv4
  readonly rebootReasons?: readonly string[]
}

/** What a running machine should be running. */
export interface Target {
  readonly imageVersion: string
  readonly bundleDigest: string
}

/** The registry as machines talk to it. */
export interface MachineDesk {
  /** Mints a boot and decides its plan. */
  offerBoot(mac: Mac, sighting: Sighting): Promise<BootOffer>
  /** Throws KitError `not-found` for a boot id that was never minted for this machine. */
  report(mac: Mac, report: StepReport): Promise<void>
  /** Throws KitError `stale-boot` or `not-found`. */
  checkIn(mac: Mac, checkIn: CheckIn): Promise<void>
  /** Undefined when the machine was never seen, has no role, or there is nothing to give it: no image, no bundle. */
  target(mac: Mac): Promise<Target | undefined>
  /** Called after the wanted bundle of any machine may have changed; the returned function unsubscribes. */
  onTargetChange(listener: () => void): () => void
}

/** A machine with what its files say of it, as the API shows it. */
export interface MachineView extends Machine {
  readonly role?: string
  readonly channel: string
  readonly hostname: string
  /** Absent without a role, and while there is no bundle to give. */
  readonly wantedBundle?: string
}

/** The registry as people see it. */
export interface MachineViews {
  list(): Promise<readonly MachineView[]>
  find(mac: Mac): Promise<MachineView | undefined>
}
