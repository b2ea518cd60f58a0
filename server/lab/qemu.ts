// The command line of one lab machine: a pure function from what it is to what QEMU is told.

import type { Mac } from '#lib/mac.ts'

export type LabFirmware = 'uefi' | 'bios'

/** `kvm` only where a trial boot has shown that it works (kvm.ts). */
export type Accelerator = 'kvm' | 'tcg'

export type DiskBus = 'virtio' | 'nvme' | 'sata' | 'usb'

/** A disk, which stays as it is when the machine is switched off. */
export interface DiskSpec {
  /** A raw image; made, blank and sparse, when it is not there. */
  readonly file: string
  /** How large it is made. */
  readonly sizeBytes?: number
  readonly serial?: string
  /** Default: virtio. `usb` calls itself removable, as a stick does. */
  readonly bus?: DiskBus
  /** Where every write and flush is noted as it comes, in the format of Linux's dm-log-writes; it must be there, begun. */
  readonly writeLog?: string
}

/** A TPM 2.0, by swtpm. */
export interface TpmSpec {
  /** Absolute. Where what it remembers lies: the same TPM as long as that stays; made, with a new one, when it is not there. */
  readonly stateFolder: string
}

export interface MachineSpec {
  readonly name: string
  readonly mac: Mac
  readonly firmware: LabFirmware
  readonly accelerator: Accelerator
  readonly memoryMiB?: number
  readonly processors?: number
  /** SMBIOS UUID; without one firmware sends an all-zero option 97, as some real boards do. */
  readonly uuid?: string
  /** In the order in which firmware tries them; a BIOS tries the first one only. */
  readonly disks?: readonly DiskSpec[]
  /** Default: none. */
  readonly tpm?: TpmSpec
  /** Default: network first, then the disks. */
  readonly bootOrder?: 'network-first' | 'disk-first'
  /** QEMU's name of the network card. */
  readonly nic?: 'virtio-net-pci' | 'e1000' | 'e1000e' | 'rtl8139'
  /** UEFI only: which kind of network boot the firmware tries. OVMF tries PXE first and needs ~140 s to give it up [M]. */
  readonly networkBoot?: 'pxe' | 'http'
  /** Anything else, as QEMU takes it. */
  readonly extraArguments?: readonly string[]
}

/** Where the parts of a running machine lie. Socket paths must fit sockaddr_un (107 bytes). */
export interface MachineFiles {
  readonly serialLog: string
  /** Where a person attaches to the serial console. */
  readonly serialSocket: string
  /** QMP. */
  readonly monitorSocket: string
  /** Of swtpm; used by machines with a TPM only. */
  readonly tpmSocket: string
  /** UEFI only: the machine's own copy of OVMF's variables. Its boot options are its own, and survive a power cut as on a board. */
  readonly firmwareVariables: string
}

export const OVMF_CODE = '/usr/share/OVMF/OVMF_CODE_4M.fd'
export const OVMF_VARIABLES = '/usr/share/OVMF/OVMF_VARS_4M.fd'

/** What one live boot needs: the root image (~200 MB) lies in memory, beside a kernel, systemd and containerd. */
const DEFAULT_MEMORY_MIB = 2048

/** Without graphics SeaBIOS, and with it iPXE, uses the serial console (its fw_cfg file etc/sercon-port); OVMF does so anyway. */
const MACHINE_TYPE: Readonly<Record<LabFirmware, string>> = { uefi: 'q35', bios: 'q35,graphics=off' }

export function qemuArguments(spec: MachineSpec, files: MachineFiles, tap: string): string[] {
  return [
    ...['-name', spec.name, '-machine', MACHINE_TYPE[spec.firmware], '-no-user-config'],
    ...['-nodefaults', '-display', 'none'],
    ...acceleratorArguments(spec.accelerator),
    ...restartArguments(spec.accelerator),
    ...['-smp', String(spec.processors ?? 2), '-m', String(spec.memoryMiB ?? DEFAULT_MEMORY_MIB)],
    ...(spec.uuid === undefined ? [] : ['-uuid', spec.uuid]),
    ...['-device', 'virtio-rng-pci'], // the initrd's first TLS and systemd's seed do not wait for entropy
    ...serialArguments(files),
    ...['-qmp', `unix:${escapeOption(files.monitorSocket)},server=on,wait=off`],
    ...(spec.firmware === 'uefi' ? uefiArguments(spec, files) : []),
    ...networkArguments(spec, tap),
    ...(spec.disks ?? []).flatMap((disk, index) => diskArguments(spec, disk, index)),
    ...(spec.tpm === undefined ? [] : tpmArguments(files)),
    ...WATCHDOG,
    ...(spec.extraArguments ?? []),
  ]
}

/** Pulls the reset line of a machine whose system hangs, as a board's own does. */
const WATCHDOG = ['-device', 'i6300esb', '-action', 'watchdog=reset']

export function acceleratorArguments(accelerator: Accelerator): string[] {
  return ['-accel', accelerator === 'kvm' ? 'kvm' : 'tcg,thread=multi', '-cpu', 'max']
}

/**
 * Emulated machines restart in a new QEMU (power.ts). One that goes on remembers what it translated of the old kernel, and
 * a boot loader that copies its kernel over that memory gets 25 kB/s: GRUB took half an hour (QEMU 7.2, where the copy of
 * each byte looks through all that was translated of its page).
 */
function restartArguments(accelerator: Accelerator): string[] {
  return accelerator === 'tcg' ? ['-action', 'reboot=shutdown'] : []
}

/** QEMU itself writes the log, so nothing is lost while nobody, or somebody else, is attached to the socket. */
function serialArguments(files: MachineFiles): string[] {
  const socket = `path=${escapeOption(files.serialSocket)},server=on,wait=off`
  const log = `logfile=${escapeOption(files.serialLog)},logappend=on`
  return ['-chardev', `socket,id=serial0,${socket},${log}`, '-serial', 'chardev:serial0']
}

function uefiArguments(spec: MachineSpec, files: MachineFiles): string[] {
  return [
    ...['-drive', `if=pflash,format=raw,unit=0,readonly=on,file=${OVMF_CODE}`],
    ...['-drive', `if=pflash,format=raw,unit=1,file=${escapeOption(files.firmwareVariables)}`],
    ...(spec.networkBoot === 'http' ? ['IPv4', 'IPv6'].flatMap(noPxe) : noPxe('IPv6')),
  ]
}

/** OvmfPkg's switch for one PXE driver (opt/org.tianocore/IPv4PXESupport and IPv6PXESupport, edk2 since 2022). */
function noPxe(family: string): string[] {
  return ['-fw_cfg', `name=opt/org.tianocore/${family}PXESupport,string=no`]
}

function networkArguments(spec: MachineSpec, tap: string): string[] {
  const bootIndex = spec.bootOrder === 'disk-first' ? 1 + (spec.disks ?? []).length : 1
  const device = `${spec.nic ?? 'virtio-net-pci'},netdev=net0,mac=${spec.mac},bootindex=${bootIndex}`
  // With OVMF an empty romfile keeps QEMU's own iPXE out: the firmware's PXE is what shall be tried.
  // SeaBIOS has no PXE of its own: there QEMU's option ROM (iPXE of 2019) is the firmware.
  const romFile = spec.firmware === 'uefi' ? ',romfile=' : ''
  return [
    ...['-netdev', `tap,id=net0,ifname=${tap},script=no,downscript=no`],
    ...['-device', `${device}${romFile}`],
  ]
}

/**
 * A flush does not reach the host's disk (`no-flush`), which makes no difference to what is tested here: what the guest's
 * disk has acknowledged lies in the host's page cache and outlives QEMU, only what the guest never sent is lost. A cut
 * therefore shows writes in a wrong order or not made yet, not a cache inside the disk that loses what was not flushed; for
 * that there is the log of writes.
 */
function diskArguments(spec: MachineSpec, disk: DiskSpec, index: number): string[] {
  const node = `disk${index}`
  const bootIndex = spec.bootOrder === 'disk-first' ? index + 1 : index + 2
  const file = (path: string) => `driver=file,filename=${escapeOption(path)},cache.no-flush=on,discard=unmap`
  // NVMe has no disk without a serial.
  const serial = disk.serial ?? (disk.bus === 'nvme' ? `nvme${index}` : undefined)
  const common = `drive=${node},bootindex=${bootIndex}${serial === undefined ? '' : `,serial=${serial}`}`
  const logged = disk.writeLog === undefined ? '' : '-logged'
  return [
    ...['-blockdev', `${file(disk.file)},node-name=${node}-file`],
    ...(disk.writeLog === undefined ? [] : logArguments(node, file(disk.writeLog))),
    ...['-blockdev', `driver=raw,file=${node}${logged || '-file'},node-name=${node},discard=unmap`],
    ...DISK_DEVICES[disk.bus ?? 'virtio'](index).flatMap((device) => [
      '-device',
      device.replace('DRIVE', common),
    ]),
  ]
}

/** The older interface of the two: every firmware and every kernel here has a driver for it. */
function tpmArguments({ tpmSocket }: MachineFiles): string[] {
  return [
    ...['-chardev', `socket,id=tpm0,path=${escapeOption(tpmSocket)}`],
    ...['-tpmdev', 'emulator,id=tpm0,chardev=tpm0', '-device', 'tpm-tis,tpmdev=tpm0'],
  ]
}

/** It goes on with the log that is there: an emulated machine restarts in a new QEMU. */
function logArguments(node: string, logFile: string): string[] {
  const log = `driver=blklogwrites,node-name=${node}-logged,file=${node}-file,log=${node}-log,log-append=on`
  return ['-blockdev', `${logFile},node-name=${node}-log`, '-blockdev', log]
}

/** Each disk brings its own USB controller; the SATA ports are the chipset's. */
const DISK_DEVICES: Readonly<Record<DiskBus, (index: number) => readonly string[]>> = {
  virtio: () => ['virtio-blk-pci,DRIVE'],
  nvme: () => ['nvme,DRIVE'],
  sata: (index) => [`ide-hd,bus=ide.${index},DRIVE`],
  usb: (index) => [`qemu-xhci,id=usb${index}`, `usb-storage,bus=usb${index}.0,removable=on,DRIVE`],
}

/** QEMU's option parser ends a value at a comma; a doubled one is a comma. */
function escapeOption(value: string): string {
  return value.replaceAll(',', ',,')
}
