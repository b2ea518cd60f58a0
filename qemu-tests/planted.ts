// Secrets that a test plants, or that come to be while it runs, and the search for them wherever they must not be.

import { randomBytes } from 'node:crypto'
import { readdir, readFile, stat } from 'node:fs/promises'
import { join, relative } from 'node:path'

import { runCommand } from '#lib/process.ts'
import { formsOf } from '#testing/loot.ts'

/** Something that must not be found, by each of its forms. */
export interface Needle {
  readonly name: string
  readonly forms: readonly string[]
}

/** Found only where it was planted. */
export function makeSecret(name: string): string {
  return `planted-${name}-${randomBytes(12).toString('hex')}`
}

/** As it is, in hex and in base64. */
export function needleOf(name: string, secret: string): Needle {
  return { name, forms: formsOf(secret) }
}

/** One line of its base64 is long enough to be found nowhere else. */
export function keyNeedle(name: string, pem: string): Needle {
  const lines = pem.split('\n').filter((line) => /^[A-Za-z0-9+/]{64}$/.test(line))
  const line = lines[Math.floor(lines.length / 2)]
  if (line === undefined) throw new Error(`Cannot look for ${name}: it is no key in PEM`)
  return { name, forms: [line, Buffer.from(line, 'base64').toString('hex')] }
}

/** The private keys in a folder, of every kind. */
export async function keyNeedlesIn(folder: string): Promise<readonly Needle[]> {
  const needles: Needle[] = []
  for (const name of (await readdir(folder)).sort()) {
    const text = await readFile(join(folder, name), 'utf8')
    const [age] = /AGE-SECRET-KEY-\S+/.exec(text) ?? []
    if (age !== undefined) needles.push(needleOf(name, age))
    else if (text.includes('PRIVATE KEY-----')) needles.push(keyNeedle(name, text))
  }
  return needles
}

/** What is never searched: machines' disks and TPMs, and the server's own keys, are where secrets lie. */
const LEFT_OUT = /(\.disk|\.fd)$|^(keys|tpm)\//

export async function filesToSearch(folder: string): Promise<readonly string[]> {
  const files: string[] = []
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    const file = join(entry.parentPath, entry.name)
    if (entry.isFile() && !LEFT_OUT.test(relative(folder, file))) files.push(file)
  }
  return files
}

/** `<name> in <file>`, for each that is found. */
export async function findNeedles(
  files: readonly string[],
  needles: readonly Needle[],
): Promise<readonly string[]> {
  const names = new Map(needles.flatMap(({ name, forms }) => forms.map((form) => [form, name] as const)))
  const options = ['--text', '--only-matching', '--with-filename', '--null', '--fixed-strings', '--file=-']
  const { exitCode, stdout, stderr } = await runCommand('grep', [...options, ...files], {
    input: [...names.keys()].join('\n'),
    env: { ...process.env, LC_ALL: 'C' },
  })
  if (exitCode !== 0 && exitCode !== 1) throw new Error(`Cannot search: ${stderr}`)
  const lines = stdout.split('\n').filter((line) => line !== '')
  const found = lines.map((line) => {
    const [file, form = ''] = line.split('\0')
    return `${names.get(form) ?? form} in ${file}`
  })
  return [...new Set(found)]
}

export async function totalBytes(files: readonly string[]): Promise<number> {
  return (await Promise.all(files.map((file) => stat(file)))).reduce((sum, { size }) => sum + size, 0)
}
