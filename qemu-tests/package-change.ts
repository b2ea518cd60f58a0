// What a security update of one package changes in the root file system: openssh's programs, made other bytes, and those
// that a machine runs still work. Two builds of one program differ nearly everywhere, and so do these.

import { appendFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

import { commandOutput } from '#lib/process.ts'

const RUN = ['sbin/sshd', 'lib/openssh/sshd-session', 'lib/openssh/sshd-auth', 'bin/ssh-keygen']
/** Nothing on a machine runs these, so all of them may change. */
const NOT_RUN = ['bin/ssh', 'bin/ssh-keyscan', 'bin/ssh-add', 'bin/ssh-agent', 'lib/openssh/ssh-keysign']

/** Two ways to write ten bytes that do nothing; compilers put the first one between functions and before loops. */
const OLD_NOP = Buffer.from('662e0f1f840000000000', 'hex')
const NEW_NOP = Buffer.from('0f1f8400000000006690', 'hex')

/** Lays the changed files into `added`. `image` is the base's root.squashfs. */
export async function changeOpenssh(image: string, added: string): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'kit-package-'))
  try {
    const root = join(folder, 'root')
    const names = [...RUN, ...NOT_RUN].map((name) => `usr/${name}`)
    await commandOutput('unsquashfs', ['-no-progress', '-dest', root, image, ...names])
    for (const name of names) {
      const content = await readFile(join(root, name))
      const file = join(added, name)
      await mkdir(dirname(file), { recursive: true })
      const isRun = RUN.some((each) => name === `usr/${each}`)
      await writeFile(file, isRun ? otherNops(content) : content.map((byte) => byte ^ 0x5a), { mode: 0o755 })
      // A new build has another size, which moves everything behind it in the image.
      await appendFile(file, `${name} of another build\n`.repeat(30))
    }
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

function otherNops(code: Buffer): Buffer {
  const changed = Buffer.from(code)
  for (let at = changed.indexOf(OLD_NOP); at >= 0; at = changed.indexOf(OLD_NOP, at))
    NEW_NOP.copy(changed, at)
  return changed
}
