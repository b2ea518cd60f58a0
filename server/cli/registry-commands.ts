// `kateskit registry`: the container images that machines get from the running server.

import type { Command } from 'commander'

import { KitError } from '#lib/errors.ts'
import type { JsonHttp } from '#lib/json-http.ts'
import type { ContainerImage, RegistryImported, RegistryVerdict } from '#machine/registry-ports.ts'

import { type AnswerOptions, JSON_OPTION, type Server, show } from './answers.ts'
import type { CliIo } from './cli-io.ts'
import { absoluteSource, followImport } from './follow-import.ts'
import { renderRegistry } from './render-registry.ts'

/** Every byte of gigabytes, from a slow disk that others use too. */
const VERIFY_TIMEOUT_MS = 3_600_000

interface ImportOptions {
  readonly name?: string
}

export function addRegistryCommands(program: Command, io: CliIo, server: Server): void {
  const registry = program.command('registry').description('container images for machines without internet')
  registry
    .command('import <source>')
    .description(
      'bring in an OCI image layout (folder or tar), a tar that docker save wrote, or the URL of a tar',
    )
    .option('--name <reference>', "as what, in place of the archive's own names: registry.k8s.io/pause:3.9")
    .addHelpText(
      'after',
      '\nPaths are looked up by the server. Ctrl-C leaves the import to the server, which goes on.',
    )
    .action(async (source: string, options: ImportOptions) => {
      await importArchive(await server(), io, { ...options, source: absoluteSource(source) })
    })
  registry
    .command('list')
    .description('every name, and what it stands for')
    .option(...JSON_OPTION)
    .action(async (options: AnswerOptions) => {
      const answer = (await (await server()).request('GET', '/api/v1/registry/images')) as {
        readonly images: readonly ContainerImage[]
      }
      show(io, options, answer, () => renderRegistry(answer.images, Date.now()))
    })
  registry
    .command('remove <reference>')
    .description('remove a name, and what nothing else needs')
    .action(async (reference: string) => {
      const path = `/api/v1/registry/images?name=${encodeURIComponent(reference)}`
      await (await server()).request('DELETE', path)
      io.stdout.write(`${reference} is removed\n`)
    })
  registry
    .command('verify [reference]')
    .description('read every byte of an image, or of all, and compare it with its digest')
    .action(async (reference: string | undefined) => verify(await server(), io, reference))
}

/** Says what has come. */
export async function importArchive(
  http: JsonHttp,
  io: CliIo,
  body: ImportOptions & { readonly source: string },
): Promise<void> {
  const { id } = (await http.request('POST', '/api/v1/registry/imports', body)) as { readonly id: string }
  const path = `/api/v1/registry/imports/${id}`
  const words = { path, title: 'Importing container images', later: 'kateskit registry list' }
  const { references } = await followImport<RegistryImported>(http, io, words)
  for (const reference of references) io.stdout.write(`${reference} is here\n`)
}

async function verify(http: JsonHttp, io: CliIo, name: string | undefined): Promise<void> {
  const body = name === undefined ? {} : { name }
  const answer = await http.request('POST', '/api/v1/registry/verify', body, { timeoutMs: VERIFY_TIMEOUT_MS })
  const { images } = answer as { readonly images: readonly RegistryVerdict[] }
  for (const { reference, problems } of images)
    io.stdout.write(`${reference}: ${problems.length === 0 ? 'whole' : problems.join('; ')}\n`)
  const damaged = images.filter(({ problems }) => problems.length > 0).map(({ reference }) => reference)
  if (damaged.length === 0) return
  throw new KitError('conflict', `Cannot vouch for ${damaged.join(', ')}: blobs are not what they were`, {
    fix: 'kateskit registry import <where it came from> mends it',
  })
}
