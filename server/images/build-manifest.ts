// manifest.json as the recipe writes it (assets/image/manifest.sh): its shape, and what an image must have.

import * as z from 'zod'

import { describeError, KitError } from '#lib/errors.ts'

/** Without these nothing boots. */
const NEEDED_FILES = ['vmlinuz', 'initrd.img', 'root.squashfs'] as const

/** At most one folder deep and no segment that starts with a dot: a name can never lead out of a folder. */
const FILE_NAME = /^[a-z0-9][a-z0-9._-]*(\/[a-z0-9][a-z0-9._-]*)?$/

const FILES_MAX = 1000

/** Becomes a path segment of URLs, a file's name and a word of the kernel command line. */
const VERSION = /^[0-9A-Za-z][0-9A-Za-z._~-]{0,63}$/

/** As Kubernetes says it, `v1.33.4`; it becomes a line of the signed manifest. */
const KUBERNETES_VERSION = /^v\d{1,3}\.\d{1,3}\.\d{1,3}(-[0-9A-Za-z.]{1,32})?$/

export const fileShape = z.object({
  name: z.string().regex(FILE_NAME),
  sizeBytes: z.int().positive(),
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
})

/** What else it says (packages, kernel) is for people, and kept. */
export const buildShape = z.looseObject({
  version: z.string().regex(VERSION),
  arch: z.enum(['amd64', 'arm64']),
  /** The security epoch: machines refuse less than the highest they ran. */
  epoch: z.int().nonnegative().max(999_999_999).default(0),
  /** dm-verity's. Absent: the image can be booted live only. */
  rootHash: z
    .string()
    .regex(/^[0-9a-f]{64}$/)
    .exactOptional(),
  /** Absent: the image has none. */
  kubernetes: z.looseObject({ version: z.string().regex(KUBERNETES_VERSION) }).exactOptional(),
  files: z.array(fileShape).max(FILES_MAX),
})

export type BuildFile = z.infer<typeof fileShape>
export type BuildManifest = z.infer<typeof buildShape>

/** Throws KitError `invalid-input` with everything that is wrong; `where` names the manifest for people. */
export function parseBuild(text: string, where: string): BuildManifest {
  const cannot = (why: string, cause?: unknown) =>
    new KitError('invalid-input', `Cannot use ${where}: ${why}`, {
      fix: 'make the image again: kateskit image build',
      cause,
    })
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    throw cannot(describeError(error), error)
  }
  const result = buildShape.safeParse(value)
  const problems = result.success
    ? missingFiles(result.data)
    : result.error.issues.map(({ path, message }) => `${path.join('.') || 'manifest'}: ${message}`)
  if (!result.success || problems.length > 0) throw cannot(problems.join('; '))
  return result.data
}

function missingFiles({ files, rootHash }: BuildManifest): string[] {
  const names = files.map(({ name }) => name)
  const needed = rootHash === undefined ? NEEDED_FILES : [...NEEDED_FILES, 'root.verity']
  const twice = names.filter((name, index) => names.indexOf(name) !== index)
  return [
    ...needed.filter((name) => !names.includes(name)).map((name) => `it names no ${name}`),
    ...twice.map((name) => `it names ${name} twice`),
  ]
}

/** Whether two builds are the same image: everything a machine gets to see of them. */
export function isSameBuild(left: BuildManifest, right: BuildManifest): boolean {
  const essence = ({ version, arch, epoch, rootHash, kubernetes, files }: BuildManifest) =>
    JSON.stringify([
      version,
      arch,
      epoch,
      rootHash ?? '',
      kubernetes?.version ?? '',
      files.map(({ name, sizeBytes, sha256 }) => `${name} ${sizeBytes} ${sha256}`).sort(),
    ])
  return essence(left) === essence(right)
}
