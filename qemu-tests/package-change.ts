// What a security update of one package changes in the root file system: openssl's program and libraries, made other
// bytes that still work. Two builds of one program differ nearly everywhere, and so do these.

import { appendFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

import { commandOutput } from '#lib/process.ts'

const LIBRARIES = 'usr/lib/x86_64-linux-gnu'

/** Nothing on a machine runs the program, so all of it may change. */
const PROGRAM = 'usr/bin/openssl'

/** Two ways to write ten bytes that do nothing; compilers put the first one between functions and before loops. */
const OLD_NOP = Buffer.from('662e0f1f840000000000', 'hex')
const NEW_NOP = Buffer.from('0f1f8400000000006690', 'hex')

/** Lays the changed files into `added`. `image` is the base's root.squashfs. */
export async function changeOpenssl(image: string, added: string): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'kit-package-'))
  try {
    const root = join(folder, 'root')
    const wanted = [PROGRAM, `${LIBRARIES}/libcrypto.so.3`, `${LIBRARIES}/libssl.so.3`]
    await commandOutput('unsquashfs', ['-no-progress', '-dest', root, image, ...wanted])
    for (const name of wanted) {
      const content = await readFile(join(root, name))
      const file = join(added, name)
      await mkdir(dirname(file), { recursive: true })
      await writeFile(file, name === PROGRAM ? content.map((byte) => byte ^ 0x5a) : otherNops(content), {
        mode: 0o755,
      })
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
