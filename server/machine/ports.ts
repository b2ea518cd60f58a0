// The interfaces through which the front doors and the domain reach the outside. Adapters implement them.

import type { JobProgress } from '#lib/import-jobs.ts'
import type { Ipv4 } from '#lib/ipv4.ts'
import type { Mac } from '#lib/mac.ts'

import type { BootPlan } from './boot-plan.ts'
import type { ClusterNodeView, NodeRole } from './cluster-ports.ts'
import type { Event, NewEvent } from './event.ts'
import type { Attempt, Identity } from './identity.ts'
import type { CheckInPhase } from './lifecycle.ts'
import type { Boot, Checks, Disk, Firmware, Machine, PowerwashRequest, SlotName, Slots } from './machine.ts'
import type { Profile } from './profile.ts'
import type { SecretsKept } from './secret-ports.ts'

export interface MachineStore {
  find(mac: Mac): Promise<Machine | undefined>
  /** By MAC, ascending. */
  list(): Promise<readonly Machine[]>
  /** Inserts or replaces; committed when it resolves. */
  save(machine: Machine): Promise<void>
  /** Makes it the latest of its machine's boots, by moving `mintedMs` up when the clock was set back; returns it so. */
  saveBoot(boot: Boot): Promise<Boot>
  /**
   * The same, but an earlier one of the same plan is offered again, as the latest, when no key has used it and it was minted
   * after `sinceMs`: whoever asks for scripts in a machine's name pushes out none of its boots.
   */
  offerBoot(boot: Boot, sinceMs: number): Promise<Boot>
  /** Makes a boot that of a key, unless it is one's already; whether it is this key's now. */
  claimBoot(id: string, keySha256: string): Promise<boolean>
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
  /** Takes `machines/<mac>/role` away, if it is there; in force when it resolves. */
  unassignRole(mac: Mac): Promise<void>
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

/** What the signed manifest of an image says (docs/ports-and-endpoints.md, "The manifest"). */
export interface SignedManifest {
  readonly text: string
  /** In signify's format. */
  readonly signature: string
}

/** One image of the store, as people see it. */
export interface StoredImage extends Image {
  readonly epoch: number
  /** dm-verity root hash, hex. Absent: the image can be booted live only. */
  readonly rootHash?: string
  /** Its Kubernetes, `v1.33.4`; absent: it has none. */
  readonly kubernetes?: string
  readonly sizeBytes: number
  readonly importedMs: number
}

export type ImportProgress = JobProgress<{ readonly version: string }>

/** The images of this server: content-addressed files, signed manifests. */
export interface ImageStore {
  /** Newest release first. */
  list(): readonly StoredImage[]
  find(version: string): StoredImage | undefined
  /** Signed anew before it expires. Undefined for an unknown version. */
  manifest(version: string): SignedManifest | undefined
  /** Starts an import from a file (tar), a folder or an http(s) URL; a second one of the same source joins the first. */
  startImport(source: string): string
  /** Undefined for an id that was never given. */
  importProgress(id: string): ImportProgress | undefined
  /** Resolves with the version when the import is over. Throws KitError. */
  importDone(id: string): Promise<string>
  /** Reads every byte; resolves with what is wrong. Throws KitError `not-found`. */
  verify(version: string): Promise<readonly string[]>
  /**
   * Also a damaged one, which `list` and `find` do not have; `why` is told. Throws KitError `not-found`. Whether it is in
   * use is the caller's question (releases).
   */
  remove(version: string, why?: string): Promise<void>
  /** The one that the setting images/import named at this start; undefined without, and when it could not be had. */
  named(): StoredImage | undefined
  /** Called after an image came, which is then `imported`, or went; the returned function unsubscribes. */
  onChange(listener: (imported?: string) => void): () => void
}

/** What the next netboot of a machine would do to its disk. */
export interface PlanView {
  readonly plan: Boot['plan']
  /** For people: what would be written where, kept and lost; or why not. */
  readonly lines: readonly string[]
  readonly disks: readonly Disk[]
}

export interface Powerwashes {
  /** Flags it. Throws KitError `not-found`, or `conflict` for a machine without a role. */
  request(mac: Mac, persistence: PowerwashRequest['persistence']): Promise<MachineView>
  /** Takes it back, when it has not begun. */
  cancel(mac: Mac): Promise<MachineView>
  plan(mac: Mac): Promise<PlanView>
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

/** What a machine answers with when it is asked for its disks. */
export interface DiskReport {
  readonly boot: string
  readonly firmware: 'uefi' | 'bios'
  readonly disks: readonly Disk[]
}

export interface PartitionPlan {
  readonly label: string
  /** In units of 512 bytes. */
  readonly firstSector: number
  readonly sectors: number
  readonly typeGuid: string
}

/** docs/ports-and-endpoints.md, "The disk plan". */
export type DiskPlan =
  | { readonly kind: 'refused'; readonly lines: readonly string[] }
  | {
      readonly kind: 'use'
      readonly disk: Disk
      readonly table: 'make' | 'keep'
      readonly partitions: readonly PartitionPlan[]
      readonly persistence: 'keep' | 'wipe'
      /** Kernel arguments of the slot. */
      readonly arguments: string
    }

export interface BootOffer {
  readonly boot: Boot
  readonly plan: BootPlan
}

/**
 * Why the script is asked for. `powerwash`: the person at the console chose it in the boot menu. `recover`: by iPXE on the
 * machine's own disk, whose boot loader has no slot to start or was told to come here.
 */
export type BootWish = 'powerwash' | 'recover'

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
  readonly slot?: SlotName
  readonly slots?: Slots
  readonly checks?: Checks
  readonly reason?: string
  readonly drift?: readonly string[]
}

/** What a running machine should be running, and what it may do about it now (docs/ports-and-endpoints.md, "The target"). */
export interface Target {
  readonly imageVersion: string
  readonly bundleDigest: string
  readonly mayStage: boolean
  readonly mayReboot: boolean
  /** The boot that asked is confirmed. */
  readonly isGood: boolean
  readonly powerwash: boolean
  /** 0 is unbounded. */
  readonly rateKiBps: number
  readonly arguments: string
  /** sha256 (hex) of the archive of its secret files; absent when it has none. */
  readonly secretsDigest?: string
  readonly secretsKept: SecretsKept
  /** Its part in the cluster. */
  readonly kubernetes: NodeRole | 'none'
  /** How often a control plane sends a snapshot of etcd; 0 is never. */
  readonly snapshotSeconds: number
  /** Container images come through this server first. */
  readonly isMirrored: boolean
}

/** Whose words they are: the sha256 (hex) of the key by which a machine proved that it is this one. */
export interface Speaker {
  readonly keySha256: string
}

/**
 * The registry as machines talk to it. `by` is absent for words of nobody knows whom, which the front door lets through for
 * `offerBoot` and `report` only. A boot belongs to the key that uses it first: for another they throw `wrong-machine`.
 */
export interface MachineDesk {
  /** Decides its plan, and mints a boot unless there is one of that plan which nobody has used. For an alias: its machine's. */
  offerBoot(mac: Mac, sighting: Sighting, wish?: BootWish): Promise<BootOffer>
  /** For a machine that started from its own disk: mints a boot with the plan `disk`. */
  nameBoot(mac: Mac, slot: SlotName, by?: Speaker): Promise<Boot>
  /** Remembers the disks and decides what is to be done with them. Throws KitError `not-found` for an unknown boot. */
  takeDisks(mac: Mac, report: DiskReport, by?: Speaker): Promise<DiskPlan>
  /** Throws KitError `not-found` for a boot id that was never minted for this machine. */
  report(mac: Mac, report: StepReport, by?: Speaker): Promise<void>
  /** Throws KitError `stale-boot` or `not-found`. */
  checkIn(mac: Mac, checkIn: CheckIn, by?: Speaker): Promise<void>
  /** Undefined when the machine was never seen, has no role, or there is nothing to give it: no image, no bundle. */
  target(mac: Mac, bootId?: string, by?: Speaker): Promise<Target | undefined>
  /** Called after the target of any machine may have changed; the returned function unsubscribes. */
  onTargetChange(listener: () => void): () => void
}

/** A machine with what its files say of it, as the API shows it. */
export interface MachineView extends Machine {
  readonly role?: string
  /** In a cluster, by its role or the setting `kubernetes`; absent for none. */
  readonly part?: NodeRole
  readonly channel: string
  readonly hostname: string
  /** Absent without a role, and while there is no bundle to give. */
  readonly wantedBundle?: string
  /** By pin, channel and quarantine; absent without a role or an image. */
  readonly wantedImage?: string
  readonly pin?: string
  /** Absent for one that has not proved who it is. */
  readonly identity?: Pick<Identity, 'tier' | 'sinceMs' | 'keySha256' | 'by' | 'macs'>
  /** In its name, by whoever says so; absent when there are none. */
  readonly attempts?: readonly Attempt[]
  /** Its node of the cluster; absent for one that is none. */
  readonly node?: Pick<ClusterNodeView, 'role' | 'state' | 'version' | 'reason'>
}

/** The registry as people see it. */
export interface MachineViews {
  list(): Promise<readonly MachineView[]>
  find(mac: Mac): Promise<MachineView | undefined>
}
