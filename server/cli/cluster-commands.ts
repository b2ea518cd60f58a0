// The commands about the cluster: what it is, getting into it, adopting one, taking machines out, snapshots of etcd.

import { readFile } from 'node:fs/promises'

import type { Command } from 'commander'

import { adoptionManifest } from '#cluster/adoption.ts'
import { describeError, KitError } from '#lib/errors.ts'
import type { ClusterView, Snapshot } from '#machine/cluster-ports.ts'

import { type AnswerOptions, JSON_OPTION, type Server, show } from './answers.ts'
import { askYesNo } from './ask.ts'
import { type CliIo, printLines } from './cli-io.ts'
import { findMachine, machinePath } from './find-machine.ts'
import { MACHINE_HELP } from './machine-commands.ts'
import { renderCluster, renderSnapshots } from './render-cluster.ts'

interface Agreed {
  readonly yes?: boolean
}

/** A drain may take two minutes, and the steps after it wait for the cluster, each for itself. */
const REMOVE_TIMEOUT_MS = 300_000

export function addClusterCommands(program: Command, io: CliIo, server: Server): void {
  const cluster = program.command('cluster').description('the Kubernetes cluster of this server')
  cluster
    .command('status', { isDefault: true })
    .description('what it is, its nodes, and the members of its etcd')
    .option(...JSON_OPTION)
    .action(async (options: AnswerOptions) => {
      const view = (await (await server()).request('GET', '/api/v1/cluster')) as ClusterView
      show(io, options, view, () => renderCluster(view, Date.now()))
    })
  cluster
    .command('kubeconfig')
    .description('print a kubeconfig with a certificate of its own, for an administrator of the cluster')
    .option('--days <days>', 'how long it counts', '1')
    .addHelpText(
      'after',
      '\nkateskit cluster kubeconfig > kubeconfig; KUBECONFIG=kubeconfig kubectl get nodes',
    )
    .action(async (options: { days: string }) => {
      const body = { days: daysOf(options.days) }
      const answer = await (await server()).request('POST', '/api/v1/cluster/kubeconfig', body)
      io.stdout.write((answer as { kubeconfig: string }).kubeconfig)
    })
  addAdoptionCommands(cluster, io, server)
  addRemoveCommand(program, io, server)
  addEtcdCommands(program, io, server)
}

function addAdoptionCommands(cluster: Command, io: CliIo, server: Server): void {
  cluster
    .command('role')
    .description(
      'print what an administrator of another cluster applies, so that this server may join machines to it',
    )
    .option('--namespace <name>', 'where the account lies', 'kube-system')
    .addHelpText('after', '\nkateskit cluster role | kubectl apply -f -')
    .action(async ({ namespace }: { namespace: string }) => {
      io.stdout.write(await adoptionManifest(namespace))
    })
  cluster
    .command('adopt <kubeconfig>')
    .description('join machines to a cluster that is there already; it stays what it is')
    .option(...JSON_OPTION)
    .action(async (file: string, options: AnswerOptions) => {
      const kubeconfig = await readFile(file, 'utf8').catch((cause: unknown) => {
        throw new KitError('invalid-input', `Cannot read ${file}: ${describeError(cause)}`, { cause })
      })
      const view = await (await server()).request('POST', '/api/v1/cluster/adopt', { kubeconfig })
      show(io, options, view, () => renderCluster(view as ClusterView, Date.now()))
    })
  cluster
    .command('forget')
    .description('make this server forget the cluster, which goes on as it is')
    .option('-y, --yes', 'do not ask')
    .action(async (options: Agreed) => {
      const http = await server()
      const view = (await http.request('GET', '/api/v1/cluster')) as ClusterView
      if (view.state !== 'none') {
        const lines = [
          `The server forgets the cluster ${view.name} (${view.id}), its nodes and their grants.`,
          '  Nothing of the cluster is touched. The next control plane to ask makes another one.',
        ]
        if (!(await isAgreed(io, options, lines))) return
      }
      await http.request('DELETE', '/api/v1/cluster')
      io.stdout.write('The cluster is forgotten\n')
    })
}

function addRemoveCommand(program: Command, io: CliIo, server: Server): void {
  program
    .command('remove <machine>')
    .description('take a machine out of the cluster, and out of everything that this server knows')
    .option('--force', 'go on when the cluster or the machine is gone')
    .option('-y, --yes', 'do not ask')
    .addHelpText('after', `\n${MACHINE_HELP} May be run again when it was cut.`)
    .action(async (text: string, options: Agreed & { force?: boolean }) => {
      const http = await server()
      const mac = await findMachine(http, text)
      const lines = [
        `${mac} is taken out: its node is drained and deleted, with its place in etcd if it has one;`,
        '  its role is taken away, its key counts no more, and what was known of it is forgotten.',
      ]
      if (!(await isAgreed(io, options, lines))) return
      await http.request('DELETE', `${machinePath(mac)}?force=${options.force === true ? 1 : 0}`, undefined, {
        timeoutMs: REMOVE_TIMEOUT_MS,
      })
      io.stdout.write(`${mac} is taken out\n`)
    })
}

function addEtcdCommands(program: Command, io: CliIo, server: Server): void {
  const etcd = program.command('etcd').description("snapshots of the cluster's etcd")
  etcd
    .command('snapshots')
    .description('those that are kept, the newest first')
    .option(...JSON_OPTION)
    .action(async (options: AnswerOptions) => {
      const answer = await (await server()).request('GET', '/api/v1/etcd/snapshots')
      const { snapshots } = answer as { snapshots: readonly Omit<Snapshot, 'file'>[] }
      show(io, options, answer, () => renderSnapshots(snapshots, Date.now()))
    })
  etcd
    .command('restore <sha256>')
    .description('choose what the next restore takes: the beginning of a sha256 is enough')
    .addHelpText(
      'after',
      '\nA restore happens when the only control plane comes back without data of etcd: kateskit powerwash <machine> --persistence',
    )
    .action(async (text: string) => {
      const http = await server()
      const answer = await http.request('GET', '/api/v1/etcd/snapshots')
      const { snapshots } = answer as { snapshots: readonly Snapshot[] }
      const sha256 = chooseSnapshot(snapshots, text)
      await http.request('POST', '/api/v1/etcd/restore', { sha256 })
      printLines(io.stdout, [
        `The next restore of etcd takes ${sha256.slice(0, 16)}:`,
        'it happens when the only control plane comes back without data (kateskit powerwash <machine> --persistence)',
      ])
    })
}

/** Throws KitError `not-found`, or `conflict` for the beginning of several. */
function chooseSnapshot(snapshots: readonly Pick<Snapshot, 'sha256'>[], text: string): string {
  const [found, ...others] = snapshots.filter(
    ({ sha256 }) => text !== '' && sha256.startsWith(text.toLowerCase()),
  )
  if (found !== undefined && others.length === 0) return found.sha256
  const what = found === undefined ? 'there is none' : 'there are several'
  throw new KitError(
    found === undefined ? 'not-found' : 'conflict',
    `Cannot choose snapshot ${text}: ${what}`,
    {
      fix: 'kateskit etcd snapshots lists them',
    },
  )
}

function daysOf(text: string): number {
  const days = /^\d{1,3}$/.test(text) ? Number(text) : 0
  if (days >= 1 && days <= 365) return days
  throw new KitError('invalid-input', `Cannot use --days ${text}: a number from 1 to 365 was expected`)
}

/** Without a terminal there is nobody to ask: what cannot be had back needs the option. */
async function isAgreed(io: CliIo, { yes }: Agreed, lines: readonly string[]): Promise<boolean> {
  if (yes === true) return true
  if (io.stdin.isTTY !== true) {
    throw new KitError('invalid-input', 'Cannot ask whether this is meant: this is no terminal', {
      fix: 'add --yes',
    })
  }
  printLines(io.stdout, lines)
  if (await askYesNo(io, 'Go on?')) return true
  io.stdout.write('Nothing was done\n')
  return false
}
