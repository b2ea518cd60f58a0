// Other versions of the image under test: one package newer, one that cannot work, one more that can.

import { chmod, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

import { commandOutput } from '#lib/process.ts'
import { type KubernetesChoice, kubernetesEnvironment } from '#setup/kubernetes.ts'

import { changeOpenssh } from './package-change.ts'
import { imageFolder, PROJECT } from './test-lan.ts'

/**
 * - `next`: the base with the files of one Debian source package changed
 * - `bad`: fails in the way that the machine's overlay file FAILURE_FILE says, on its first start and on every other
 * - `later`: good again
 */
export const VARIANTS = { next: '0.2.0', bad: '0.3.0', later: '0.4.0' } as const
export type VariantName = keyof typeof VARIANTS

/** One word: `panic` (of the kernel), `mute` (it never checks in) or `check` (one of its own checks fails). */
export const FAILURE_FILE = '/etc/kit-test/failure'

/** The folder of a built image, as `kateskit image import` takes it. Quick when it was built before. */
export async function buildVariant(name: VariantName, kubernetes?: KubernetesChoice): Promise<string> {
  const base = await imageFolder(kubernetes)
  const added = await mkdtemp(join(tmpdir(), 'kit-variant-'))
  try {
    await addFiles(name, base, added)
    const args = ['--version', VARIANTS[name], '--add', added]
    const env = kubernetes && { ...process.env, ...kubernetesEnvironment(kubernetes) }
    const options = { cwd: PROJECT, ...(env !== undefined && { env }) }
    const output = await commandOutput(join(PROJECT, 'assets/image/build.sh'), args, options)
    return output.trim().split('\n').at(-1) ?? ''
  } finally {
    await rm(added, { recursive: true, force: true })
  }
}

async function addFiles(name: VariantName, base: string, added: string): Promise<void> {
  switch (name) {
    case 'next':
      return changeOpenssh(join(base, 'root.squashfs'), added)
    case 'bad':
      return writeFiles(added, BAD_FILES)
    case 'later':
      return writeFiles(added, { 'etc/kit-test-later': 'an image that works\n' })
    default:
      name satisfies never
  }
}

const UNIT = 'etc/systemd/system/kit-test-bad.service'

/** After boot-complete's own ordering nothing is left to do, so it comes before the agent, and early. */
const BAD_FILES: Readonly<Record<string, string | { readonly linkTo: string }>> = {
  [UNIT]: `[Unit]
Description=What is wrong with this image
DefaultDependencies=no
After=local-fs.target
Before=kit-agent.service boot-complete.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/lib/kit-test/fail
`,
  'etc/systemd/system/sysinit.target.wants/kit-test-bad.service': { linkTo: `/${UNIT}` },
  'etc/systemd/system/boot-complete.target.requires/kit-test-bad.service': { linkTo: `/${UNIT}` },
  'usr/lib/kit-test/fail': `#!/bin/sh
set -eu
case $(cat ${FAILURE_FILE}) in
  panic)
    echo 1 >/proc/sys/kernel/sysrq
    echo c >/proc/sysrq-trigger
    ;;
  mute) systemctl mask --runtime --now --no-block kit-agent.service ;;
  check) exit 1 ;;
esac
`,
}

async function writeFiles(
  root: string,
  files: Readonly<Record<string, string | { readonly linkTo: string }>>,
): Promise<void> {
  for (const [name, content] of Object.entries(files)) {
    const file = join(root, name)
    await mkdir(dirname(file), { recursive: true })
    if (typeof content !== 'string') {
      await symlink(content.linkTo, file)
      continue
    }
    await writeFile(file, content)
    if (content.startsWith('#!')) await chmod(file, 0o755)
  }
}
