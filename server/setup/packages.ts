// Every Debian package this project uses on the host, with the reason why, by what it is needed for.

import type { KubernetesChoice } from './kubernetes.ts'

/** `image`: building the base image. `kubernetes`: fetching packages of Kubernetes for it. `kubernetesSource`: building it. `lab`: virtual machines. `serve`: a real LAN. `check`: linters. `peers`: foreign clients and servers in tests. */
export type PackageGroup = 'image' | 'kubernetes' | 'kubernetesSource' | 'lab' | 'serve' | 'check' | 'peers'

export const PACKAGES: Readonly<Record<PackageGroup, Readonly<Record<string, string>>>> = {
  image: {
    mmdebstrap: 'makes the Debian tree of the base image',
    'debian-archive-keyring': "checks Debian's signatures; Ubuntu does not bring it along",
    'ca-certificates': 'for archives reached over HTTPS',
    'squashfs-tools': 'packs the root file system',
    'cryptsetup-bin': 'veritysetup: the hashes by which a machine checks its root as it reads',
    cpio: 'packs the initrd',
    zstd: 'compresses the initrd and the cached Debian tree',
    'xz-utils': 'unpacks kernel modules',
    'util-linux': 'unshare, setpriv, flock: the build leaves nothing behind',
    curl: 'asks whether the repository of Kubernetes answers, and fetches its key',
  },
  kubernetes: {
    gpg: 'knows the key of the community repository again',
  },
  kubernetesSource: {
    'dpkg-dev': "unpacks Debian's source package of Kubernetes",
    make: 'what its build is written for',
    rsync: 'the same',
    gcc: 'compiles the pause container; Go itself comes with the build',
    'libc6-dev': 'what that is linked with',
  },
  lab: {
    'qemu-system-x86': 'the virtual machines',
    'ipxe-qemu': "the network cards' boot ROMs: the firmware of a BIOS machine",
    seabios: 'the BIOS',
    ovmf: 'the UEFI firmware',
    iproute2: 'the virtual LAN: bridge and taps',
    swtpm: 'TPMs for virtual machines that have one',
    'systemd-container': 'systemd-nspawn: machines that are containers',
    // Not `busybox`: the two exclude each other.
    'busybox-static': "their firmware's DHCP client",
    curl: 'their firmware, once it has an address',
    cpio: 'unpacks the initrd for them',
    zstd: 'unpacks the initrd for them',
    'util-linux': 'unshare, nsenter, setpriv: the lab leaves nothing behind',
  },
  serve: {
    iproute2: 'shows a person what the interface has',
  },
  check: {
    shellcheck: 'lints shell',
    shfmt: 'formats shell',
    bats: 'runs the tests of shell',
    git: 'lists the files to check',
    // Not `busybox`: the two exclude each other.
    'busybox-static': 'the shell of the initrd, which its tests run under; DHCP and TFTP client',
    dash: 'the other shell they run under',
  },
  peers: {
    'dnsmasq-base': 'the router beside our proxy DHCP; no service of its own is started',
    atftp: 'TFTP client',
    'tftp-hpa': 'TFTP client',
    'isc-dhcp-client': 'DHCP client',
    udhcpc: 'DHCP client',
    'avahi-daemon': 'mDNS peer',
    'avahi-utils': 'avahi-browse',
    dbus: 'what avahi-browse and avahi-daemon speak over',
    tcpdump: 'what a failing test shows of the network',
    procps: 'ps: what processes a lab has left behind',
    curl: 'HTTP client',
    fdisk: 'sfdisk: disks for virtual machines, and what stands on theirs',
    dosfstools: 'makes FAT file systems on them',
    mtools: 'reads and writes these without mounting: not every kernel has FAT',
    e2fsprogs: 'makes the other file systems of such disks',
    'grub-emu': 'runs the script by which GRUB chooses a slot in GRUB itself',
    age: 'opens what the server seals, and seals what it opens',
    'signify-openbsd': "verifies the signatures of images' manifests",
    'swtpm-tools': 'makers of such TPMs, with certificates',
    'tpm2-tools': 'what a machine asks its TPM with',
    'libtss2-tcti-swtpm0': 'lets it ask one that is in no machine',
    skopeo: 'copies container images: what it makes is imported, what it gets is compared',
    umoci: 'makes them without a registry',
    pebble: 'a certificate authority that speaks ACME',
    'etcd-server': 'what a real API server of Kubernetes keeps its objects in',
    'etcd-client': 'asks it',
    'apt-utils': 'makes the local mirror of an offline build',
    'openssh-client': 'logs in to the virtual machines and looks at them from inside',
  },
}

/** What a command needs; `fast` is every test but those with virtual machines. */
export const PURPOSES = {
  lab: ['image', 'lab'],
  serve: ['image', 'serve'],
  check: ['check'],
  fast: ['image', 'kubernetes', 'kubernetesSource', 'lab', 'check', 'peers'],
  test: ['image', 'kubernetes', 'kubernetesSource', 'lab', 'check', 'peers'],
} as const satisfies Record<string, readonly PackageGroup[]>

export type Purpose = keyof typeof PURPOSES

export function packagesFor(purpose: Purpose): readonly string[] {
  return namesOf(PURPOSES[purpose])
}

export function imagePackages(): readonly string[] {
  return namesOf(['image'])
}

/** Beside those of the image that it goes into. */
export function kubernetesPackages(source: KubernetesChoice['source']): readonly string[] {
  return namesOf(GROUPS_OF_SOURCE[source])
}

const GROUPS_OF_SOURCE: Readonly<Record<KubernetesChoice['source'], readonly PackageGroup[]>> = {
  none: [],
  packages: ['kubernetes'],
  directory: [],
  'debian-source': ['kubernetesSource'],
}

function namesOf(groups: readonly PackageGroup[]): readonly string[] {
  return [...new Set(groups.flatMap((group) => Object.keys(PACKAGES[group])))].sort()
}
