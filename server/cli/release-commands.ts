// The commands about channels, pins and rollouts: who gets which image, and when.

import type { Command } from 'commander'

import { KitError } from '#lib/errors.ts'
import { didYouMean } from '#lib/nearest.ts'
import type { ChannelView, QuarantineView, RolloutView, UpdateLock } from '#machine/release-ports.ts'

import { type AnswerOptions, JSON_OPTION, type Server, show } from './answers.ts'
import type { CliIo } from './cli-io.ts'
import { findMachine, listMachines, machinePath } from './find-machine.ts'
import { MACHINE_HELP } from './machine-commands.ts'
import {
  plural,
  renderChannels,
  renderLocks,
  renderQuarantines,
  renderRollout,
  renderRollouts,
} from './render-releases.ts'

interface Channels {
  readonly channels: readonly ChannelView[]
}

interface Rollouts {
  readonly rollouts: readonly RolloutView[]
}

interface Quarantines {
  readonly quarantines: readonly QuarantineView[]
}

interface Locks {
  readonly locks: readonly UpdateLock[]
}

export function addReleaseCommands(program: Command, io: CliIo, server: Server): void {
  addChannelCommands(program, io, server)
  addRolloutCommands(program, io, server)
  addPinCommands(program, io, server)
}

function addChannelCommands(program: Command, io: CliIo, server: Server): void {
  const channel = program
    .command('channel')
    .description('channels: names that point at images')
    .addHelpText(
      'after',
      '\nMachines follow the channel that the setting channel names; stable, unless it is set.',
    )
  channel
    .command('list')
    .description('every channel, the image it points at, and how many machines follow it')
    .option(...JSON_OPTION)
    .action(async (options: AnswerOptions) => {
      const answer = (await (await server()).request('GET', '/api/v1/channels')) as Channels
      show(io, options, answer, () => renderChannels(answer.channels, Date.now()))
    })
  channel
    .command('promote <version> <channel>')
    .description('point a channel at an image; its machines go there one after another')
    .action(async (version: string, name: string) => {
      const http = await server()
      const { channels } = (await http.request('GET', '/api/v1/channels')) as Channels
      const view = (await http.request('PUT', channelPath(name), { version })) as ChannelView
      io.stdout.write(`${promoted(view, channels)}\n`)
    })
  for (const [word, paused] of [
    ['pause', true],
    ['resume', false],
  ] as const) {
    channel
      .command(`${word} <channel>`)
      .description(paused ? 'begin no more updates on a channel' : 'go on with the updates of a channel')
      .action(async (name: string) => {
        await (await server()).request('POST', `${channelPath(name)}/pause`, { paused })
        io.stdout.write(`${name} ${paused ? 'is paused: no update begins on it' : 'goes on'}\n`)
      })
  }
  addPinCommands(channel, io, server)
}

/** `kateskit pin` and `kateskit channel pin` are the same. */
function addPinCommands(parent: Command, io: CliIo, server: Server): void {
  parent
    .command('pin <machine> <version>')
    .description('give a machine this image, whatever its channel points at')
    .addHelpText('after', `\n${MACHINE_HELP}`)
    .action(async (text: string, version: string) => {
      const http = await server()
      const mac = await findMachine(http, text)
      await http.request('PUT', machinePath(mac, '/pin'), { version })
      io.stdout.write(`${mac} is pinned to ${version}\n`)
    })
  parent
    .command('unpin <machine>')
    .description('let a machine follow its channel again')
    .addHelpText('after', `\n${MACHINE_HELP}`)
    .action(async (text: string) => {
      const http = await server()
      const mac = await findMachine(http, text)
      await http.request('DELETE', machinePath(mac, '/pin'))
      io.stdout.write(`${mac} follows its channel again\n`)
    })
}

function addRolloutCommands(program: Command, io: CliIo, server: Server): void {
  const rollout = program.command('rollout').description('how far the machines of a channel have come')
  rollout
    .command('status [channel]')
    .description(
      'every rollout, or one with its machines; images in quarantine, and who holds the update lock',
    )
    .option(...JSON_OPTION)
    .action((channel: string | undefined, options: AnswerOptions) =>
      runStatus(io, server, { channel, options }),
    )
  for (const [word, description, done] of [
    [
      'pause',
      'begin no more updates; machines that are under way go on',
      'is paused: no update begins on it',
    ],
    ['resume', 'go on after a pause', 'goes on'],
    ['retry', 'lift the quarantine of its image and try again', 'is tried again'],
  ] as const) {
    rollout
      .command(`${word} <channel>`)
      .description(description)
      .action(async (channel: string) => {
        const path = `/api/v1/rollouts/${encodeURIComponent(channel)}/${word}`
        const view = (await (await server()).request('POST', path)) as RolloutView
        io.stdout.write(`The rollout of ${view.version} on ${channel} ${done}\n`)
      })
  }
  rollout
    .command('lift <version>')
    .description('lift the quarantine of an image, whether a channel points at it or not')
    .action(async (version: string) => {
      await (await server()).request('DELETE', `/api/v1/quarantines/${encodeURIComponent(version)}`)
      io.stdout.write(`${version} may be used again\n`)
    })
  rollout
    .command('unlock <channel> <holder>')
    .description('give back the update lock that another tool took and does not give back')
    .action(async (channel: string, holder: string) => {
      const path = `/api/v1/locks/${encodeURIComponent(channel)}/${encodeURIComponent(holder)}`
      await (await server()).request('DELETE', path)
      io.stdout.write(`${holder} does not hold the update lock of ${channel} any more\n`)
    })
}

async function runStatus(
  io: CliIo,
  server: Server,
  { channel, options }: { channel: string | undefined; options: AnswerOptions },
): Promise<void> {
  const http = await server()
  const { rollouts } = (await http.request('GET', '/api/v1/rollouts')) as Rollouts
  const { locks } = (await http.request('GET', '/api/v1/locks')) as Locks
  const nowMs = Date.now()
  if (channel === undefined) {
    const { quarantines } = (await http.request('GET', '/api/v1/quarantines')) as Quarantines
    show(io, options, { rollouts, quarantines, locks }, () => [
      ...renderRollouts(rollouts),
      ...renderQuarantines(quarantines, nowMs),
      ...renderLocks(locks, nowMs),
    ])
    return
  }
  const rollout = chooseRollout(rollouts, channel)
  const own = locks.filter((lock) => lock.channel === channel)
  const machines = await listMachines(http)
  show(io, options, { ...rollout, locks: own }, () => [
    ...renderRollout(rollout, machines),
    ...renderLocks(own, nowMs),
  ])
}

function chooseRollout(rollouts: readonly RolloutView[], channel: string): RolloutView {
  const found = rollouts.find((each) => each.channel === channel)
  if (found !== undefined) return found
  const nearest = didYouMean(
    channel,
    rollouts.map((each) => each.channel),
  )
  throw new KitError(
    'not-found',
    `Cannot find a rollout of channel ${channel}: it points at no image${nearest}`,
    {
      fix: `kateskit channel promote <version> ${channel} starts one`,
    },
  )
}

/** Any name makes a channel, so a slip of the pen does too: say it when nobody is there. */
function promoted({ name, version, machines }: ChannelView, before: readonly ChannelView[]): string {
  const names = before.map((channel) => channel.name)
  if (machines.length > 0) {
    return `${name} points at ${version}: ${plural(machines.length, 'machine')} on it. kateskit rollout status ${name}`
  }
  const nearest = names.includes(name) ? '' : didYouMean(name, names)
  return `${name} points at ${version}; no machine is on it${nearest}`
}

function channelPath(name: string): string {
  return `/api/v1/channels/${encodeURIComponent(name)}`
}
