// Places of a Debian system where an overlay's files would do harm or never be seen, and directories that are not 0755.

/** Links on a merged-usr system: a directory of that name in the overlay would replace the link and the system with it. */
const LINKS: Readonly<Record<string, string>> = {
  bin: 'usr/bin',
  sbin: 'usr/sbin',
  lib: 'usr/lib',
  lib32: 'usr/lib32',
  lib64: 'usr/lib64',
  libx32: 'usr/libx32',
  'var/run': 'run',
  'var/lock': 'run/lock',
}

/** Something else is mounted there while the system runs. */
const MOUNTED: readonly string[] = ['dev', 'proc', 'run', 'sys']

/** Why nothing may be put at the path, or undefined. */
export function refusePath(path: string): string | undefined {
  for (const [link, target] of Object.entries(LINKS)) {
    if (path === link || path.startsWith(`${link}/`)) {
      return `Cannot use /${path}: /${link} is a link on the machine; put it into ${target}/`
    }
  }
  const top = path.split('/')[0] ?? ''
  return MOUNTED.includes(top)
    ? `Cannot use /${path}: nothing in /${top} of the root is ever seen`
    : undefined
}

/**
 * A directory of the overlay lies over the image's own and gives it its mode. git knows no modes of directories, so
 * that these would turn 0755 by having a file in them. (Modes as in Debian's base-files 12.4 and systemd 257.)
 */
const DIRECTORY_MODES: Readonly<Record<string, number>> = {
  root: 0o700,
  tmp: 0o1777,
  'var/tmp': 0o1777,
  'etc/ssl/private': 0o700,
  'var/lib/private': 0o700,
  'var/cache/private': 0o700,
  'var/log/private': 0o700,
}

export function directoryMode(path: string): number {
  return DIRECTORY_MODES[path] ?? 0o755
}
