// `kateskit secret edit`: an encrypted file in an editor. In plain text it lies in memory only, for this user alone.

import { spawn } from 'node:child_process'
import { mkdtemp, readFile, rm, statfs, writeFile } from 'node:fs/promises'
import { basename, join, resolve } from 'node:path'

import { loadConfig } from '#config'
import { describeError, KitError, systemErrorCode } from '#lib/errors.ts'
import { SEALED_ENDING } from '#machine/secret-files.ts'
import { openSealed } from '#sealing/age-file.ts'
import { writeSealed } from '#sealing/seal-file.ts'
import { type ReadKey, readKey } from '#sealing/secrets-key.ts'

import type { CliIo } from './cli-io.ts'
import { labFolder } from './connect.ts'

/** include/uapi/linux/magic.h */
const IN_MEMORY: ReadonlySet<number> = new Set([0x01_02_19_94, 0x85_84_58_f6])

export async function runSecretEdit(io: CliIo, name: string): Promise<void> {
  const file = resolve(name)
  if (!file.endsWith(SEALED_ENDING)) {
    throw new KitError('invalid-input', `Cannot edit ${name}: encrypted files end in ${SEALED_ENDING}`, {
      fix: `kateskit secret edit ${name}${SEALED_ENDING}`,
    })
  }
  const { content, key } = await openWithKey(io, file)
  const folder = await mkdtemp(join(await findMemory(io), 'kit-secret-'))
  try {
    const plain = join(folder, basename(file, SEALED_ENDING) || 'secret')
    await writeFile(plain, content ?? '', { mode: 0o600, flag: 'wx' })
    await runEditor(io, plain)
    const edited = await readFile(plain)
    if (content !== undefined && edited.equals(content)) {
      io.stdout.write(`${name} is as it was\n`)
      return
    }
    await writeSealed(file, edited, key.recipient)
    io.stdout.write(`${name} is encrypted anew\n`)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/** The keys of the server that is configured here, and of the lab. */
async function openWithKey(
  io: CliIo,
  file: string,
): Promise<{ readonly content: Buffer | undefined; readonly key: ReadKey }> {
  const configured = loadConfig({ env: io.env, cwd: io.projectFolder }).values['keys/directory']
  const found = await Promise.all([configured, join(labFolder(io.projectFolder), 'keys')].map(readKey))
  const keys = found.filter((key) => key !== undefined)
  const [first] = keys
  if (first === undefined) {
    throw new KitError('unavailable', `Cannot edit ${file}: the key that opens it is not on this machine`, {
      fix: 'do it on the server; or write a new plain file there, and kateskit secret seal',
    })
  }
  const sealed = await readFile(file).catch((error: unknown) => {
    if (systemErrorCode(error) === 'ENOENT') return undefined
    throw new KitError('invalid-input', `Cannot read ${file}: ${describeError(error)}`)
  })
  if (sealed === undefined) return { content: undefined, key: first }
  let reason = ''
  for (const key of keys) {
    try {
      return { content: Buffer.from(await openSealed(sealed, key.identity)), key }
    } catch (error) {
      reason = describeError(error)
    }
  }
  throw new KitError('invalid-input', `Cannot open ${file}: ${reason}`)
}

async function findMemory(io: CliIo): Promise<string> {
  for (const folder of [io.env['XDG_RUNTIME_DIR'], '/dev/shm']) {
    if (folder === undefined || folder === '') continue
    const stats = await statfs(folder).catch(() => undefined)
    if (stats !== undefined && IN_MEMORY.has(stats.type)) return folder
  }
  throw new KitError('unavailable', 'Cannot edit a secret: neither XDG_RUNTIME_DIR nor /dev/shm is in memory')
}

/** $EDITOR may have options, so that a shell must read it, as for git. */
async function runEditor(io: CliIo, file: string): Promise<void> {
  const editor = io.env['VISUAL'] || io.env['EDITOR'] || 'vi'
  const child = spawn('sh', ['-c', `${editor} "$@"`, 'editor', file], { stdio: 'inherit', env: io.env })
  const ended = await new Promise<number | string>((done) => {
    child.once('error', (error) => done(error.message))
    child.once('exit', (code, signal) => done(code ?? signal ?? 'unknown'))
  })
  if (ended !== 0)
    throw new KitError(
      'unavailable',
      `Cannot go on: the editor (${editor}) ended with ${ended}; nothing was changed`,
    )
}
