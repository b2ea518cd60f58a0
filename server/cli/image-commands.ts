// `kateskit image`: building images, and the store of the running server.

import { resolve } from 'node:path'

import type { Command } from 'commander'

import { loadConfig } from '#config'
import { systemClock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import type { JsonHttp } from '#lib/json-http.ts'
import type { ImageView } from '#machine/release-ports.ts'
import { installPackages, missingPackages } from '#setup/apt.ts'
import { buildImage } from '#setup/base-image.ts'
import { prepareKubernetes } from '#setup/kubernetes-source.ts'
import { imagePackages } from '#setup/packages.ts'
import { createProgress } from '#setup/progress.ts'

import { type AnswerOptions, JSON_OPTION, type Server, show } from './answers.ts'
import type { CliIo } from './cli-io.ts'
import { absoluteSource, followImport } from './follow-import.ts'
import { importArchive } from './registry-commands.ts'
import { renderImages } from './render-images.ts'
import { kubernetesSettings } from './setup-command.ts'

/** Every byte of an image from a slow disk that others use too: a gigabyte takes a minute or two. */
const VERIFY_TIMEOUT_MS = 3_600_000

interface Images {
  readonly images: readonly ImageView[]
}

interface ImportOptions {
  readonly channel?: string
}

interface BuildOptions extends ImportOptions {
  readonly version?: string
  readonly add?: string
}

export function addImageCommands(program: Command, io: CliIo, server: Server): void {
  const image = program.command('image').description('images: build, import, list, verify, remove')
  addBuildCommand(image, io, server)
  image
    .command('import <source>')
    .description(
      "bring in an image: the folder of a built one, a tar of it, or the URL of the folder's manifest.json or a tar",
    )
    .option('--channel <name>', 'point this channel at it then')
    .addHelpText(
      'after',
      '\nPaths are looked up by the server. Ctrl-C leaves the import to the server, which goes on.',
    )
    .action(async (source: string, options: ImportOptions) => {
      await importImage(await server(), io, { ...options, source: absoluteSource(source) })
    })
  image
    .command('list')
    .description('every image, the newest release first, and who has it')
    .option(...JSON_OPTION)
    .action(async (options: AnswerOptions) => {
      const answer = (await (await server()).request('GET', '/api/v1/images')) as Images
      show(io, options, answer, () => renderImages(answer.images, Date.now()))
    })
  image
    .command('verify [version]')
    .description('read every byte of an image, or of all, and compare it with what came')
    .action(async (version: string | undefined) => runVerify(await server(), io, version))
  image
    .command('remove <version>')
    .description('remove an image that no channel, pin or machine uses')
    .action(async (version: string) => {
      await (await server()).request('DELETE', imagePath(version))
      io.stdout.write(`Image ${version} is removed\n`)
    })
}

function addBuildCommand(image: Command, io: CliIo, server: Server): void {
  image
    .command('build')
    .description("build this checkout's image, and bring it into the running server")
    .option('--version <version>', "as 1.4.2 or 1.5.0-test1 (default: the recipe's own)")
    .option('--add <folder>', 'files that are laid over the root of the image')
    .option('--channel <name>', 'point this channel at it then')
    .action(async ({ version, add, channel }: BuildOptions) => {
      const http = await server() // nobody waits five minutes to hear that there is none
      requireRoot(io)
      const setup = { ...io, progress: createProgress(io.stderr, systemClock) }
      const settings = kubernetesSettings(loadConfig({ env: io.env, cwd: io.projectFolder }), 'serve')
      const missing = await missingPackages(imagePackages())
      if (missing.length > 0) await installPackages(missing, setup)
      const { choice, build } = await prepareKubernetes(settings, setup)
      const args = [
        ...(version === undefined ? [] : ['--version', version]),
        ...(add === undefined ? [] : ['--add', resolve(add)]),
      ]
      const source = await buildImage(args, { ...setup, kubernetes: choice })
      // Before a machine can be given the image that asks for them.
      for (const { file } of build?.images ?? []) await importArchive(http, io, { source: file })
      await importImage(http, io, { source, ...(channel !== undefined && { channel }) })
    })
}

function requireRoot({ userId }: CliIo): void {
  if (userId === 0) return
  throw new KitError('forbidden', 'Cannot build an image: it must be run as root, for the mounts it makes', {
    fix: 'sudo kateskit image build',
  })
}

async function importImage(
  http: JsonHttp,
  io: CliIo,
  { source, channel }: ImportOptions & { readonly source: string },
): Promise<void> {
  const body = { source, ...(channel !== undefined && { channel }) }
  const { id } = (await http.request('POST', '/api/v1/images/imports', body)) as { readonly id: string }
  const path = `/api/v1/images/imports/${id}`
  const words = { path, title: 'Importing the image', later: 'kateskit image list' }
  const { version } = await followImport<{ readonly version: string }>(http, io, words)
  io.stdout.write(`Image ${version} is here${channel === undefined ? '' : `, and ${channel} points at it`}\n`)
}

async function runVerify(http: JsonHttp, io: CliIo, version: string | undefined): Promise<void> {
  const { images } = (await http.request('GET', '/api/v1/images')) as Images
  const versions = version === undefined ? images.map((image) => image.version) : [version]
  const damaged: string[] = []
  for (const each of versions) {
    const answer = await http.request('POST', `${imagePath(each)}/verify`, undefined, {
      timeoutMs: VERIFY_TIMEOUT_MS,
    })
    const { problems } = answer as { readonly problems: readonly string[] }
    io.stdout.write(`${each}: ${problems.length === 0 ? 'whole' : problems.join('; ')}\n`)
    if (problems.length > 0) damaged.push(each)
  }
  if (damaged.length === 0) return
  throw new KitError('conflict', `Cannot vouch for ${damaged.join(', ')}: files are not what they were`, {
    fix: 'kateskit image import <where it came from> mends it',
  })
}

function imagePath(version: string): string {
  return `/api/v1/images/${encodeURIComponent(version)}`
}
