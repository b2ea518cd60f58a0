// Every command and its options. What they do is in the files beside this one.

import { Command, Option } from 'commander'

import { DEFAULT_MACHINES } from '#lab/lab-machines.ts'
import { PURPOSES, type Purpose } from '#setup/packages.ts'

import { addAccessCommands } from './access-commands.ts'
import { addCaCommand } from './ca-command.ts'
import type { CliIo } from './cli-io.ts'
import { addClusterCommands } from './cluster-commands.ts'
import { connect } from './connect.ts'
import { runConsole } from './console-command.ts'
import { addIdentityCommands } from './identity-commands.ts'
import { addImageCommands } from './image-commands.ts'
import { type LabCommandOptions, runLab } from './lab-command.ts'
import { addMachineCommands } from './machine-commands.ts'
import { addQueryCommands } from './query-commands.ts'
import { addRegistryCommands } from './registry-commands.ts'
import { addReleaseCommands } from './release-commands.ts'
import { addSecretCommands } from './secret-commands.ts'
import { loadServeConfig, runServe, type ServeCommandOptions } from './serve-command.ts'
import { prepareFor } from './setup-command.ts'
import { runStart } from './start-command.ts'
import { VERSION } from './version.ts'

/** A wrong command line becomes a CommanderError; nothing here exits. */
export function buildProgram(io: CliIo, args: readonly string[]): Command {
  const program = new Command('kateskit')
    .description('Plug a machine into the network and it becomes a Kubernetes node.')
    .option(
      '--url <url>',
      'the server to ask, as https://<host>:8443 with KATESKIT_TOKEN; default: the one running here',
    )
    .option(
      '--ca <ca>',
      'with --url: the fingerprint that kateskit ca prints there, or a PEM file (KATESKIT_CA); default: as this system trusts',
    )
    .exitOverride()
    .configureOutput({
      writeOut: (text) => io.stdout.write(text),
      writeErr: (text) => io.stderr.write(text),
    })
    .showHelpAfterError('(kateskit --help lists the commands)')
  // `image build --version` is another one, and commander takes the program's wherever it stands.
  if (!args.includes('image')) program.version(VERSION)
  addStartCommands(program, io)
  const server = () => connect(io, program.opts())
  addMachineCommands(program, io, server)
  addIdentityCommands(program, io, server)
  addClusterCommands(program, io, server)
  addReleaseCommands(program, io, server)
  addImageCommands(program, io, server)
  addRegistryCommands(program, io, server)
  addQueryCommands(program, io, server)
  addAccessCommands(program, io, server)
  addSecretCommands(program, io, server)
  addCaCommand(program, io, server)
  for (const command of program.commands) command.copyInheritedSettings(program)
  return program
}

function addStartCommands(program: Command, io: CliIo): void {
  addServeOptions(addLabOptions(program.command('start')))
    .description('set up this machine, then serve the configured LAN; without one, run the lab')
    .action((options: LabCommandOptions & ServeCommandOptions) => runStart(io, options))
  addLabOptions(program.command('lab'))
    .description('set up this machine, then run virtual machines that boot from a virtual LAN')
    .action((options: LabCommandOptions) => runLab(io, options))
  addServeOptions(program.command('serve'))
    .option('--port <port>', 'the TCP port of HTTP')
    .description('serve a LAN; nothing is set up')
    .action((options: ServeCommandOptions) => runServe(io, options))
  program
    .command('console <name>')
    .option('--state <folder>', 'the folder of the lab (default: var/lab)')
    .description('the serial console of a lab machine; Ctrl-] leaves it')
    .action((name: string, options: { state?: string }) => runConsole(io, { name, ...options }))
  program
    .command('setup')
    .description('install what a purpose needs, and build the base image where it does')
    .addOption(new Option('--for <purpose>', 'what for').choices(Object.keys(PURPOSES)).makeOptionMandatory())
    .action(async (options: { for: Purpose }) => {
      // Tests have nothing to do with what a person has set.
      const isForPeople = options.for === 'lab' || options.for === 'serve'
      await prepareFor(io, options.for, isForPeople ? { config: loadServeConfig(io, {}) } : {})
    })
}

function addServeOptions(command: Command): Command {
  return command
    .option('--interface <name>', 'the network interface to serve (setting dhcp/interface)')
    .addOption(new Option('--mode <mode>', 'setting dhcp/mode').choices(['proxy', 'server', 'off']))
}

function addLabOptions(command: Command): Command {
  return command
    .option('--machines <list>', 'virtual machines by their firmware', DEFAULT_MACHINES)
    .option('--memory <MiB>', 'of each machine', '2048')
    .option('--port <port>', 'of the API on 127.0.0.1 (lab), or of HTTP (LAN)')
    .option('--state <folder>', 'where logs, sockets and state of the lab go (default: var/lab)')
    .addOption(
      new Option('--accel <how>', 'kvm, or emulation').choices(['auto', 'kvm', 'tcg']).default('auto'),
    )
    .addOption(new Option('--until <state>', 'end when every machine is there').choices(['ready']))
    .option('--timeout <seconds>', 'with --until: give up after this long', '900')
    .option('--json', 'print one JSON object a line on standard output, for programs')
}
