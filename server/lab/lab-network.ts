// A virtual LAN: a namespace with a bridge, the server on it, machines plugged into it, and a router where one is wanted.

import { mkdir, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Child } from '#lib/child.ts'
import { type Service, startAll, stopAll } from '#lib/service.ts'
import type { Container, ContainerSpec } from './container.ts'
import { ContainerSockets } from './container-sockets.ts'
import { addBridge, addCable, createNetns, type Netns } from './netns.ts'
import { type Pairing, type PairingRule, pairByConsole } from './pairing.ts'
import type { MachineSpec } from './qemu.ts'
import { startRouter } from './router.ts'
import { createServerProcess, type ServerProcess } from './server-process.ts'
import type { Vm } from './vm.ts'
import { WallSockets } from './wall-sockets.ts'

export interface LabNetworkOptions {
  /** Absolute; everything the lab writes lies in it. */
  readonly folder: string
  readonly profilesFolder: string
  /** `server`: ours gives the addresses. `proxy`: dnsmasq gives them, as a home router does, and ours adds the boot information. */
  readonly mode: 'server' | 'proxy'
  /** More settings of the server, as `KATESKIT_<PATH>`. */
  readonly environment?: Readonly<Record<string, string>>
  /** Default: what an earlier lab left in the folder is thrown away, its machines' disks and firmware variables too. */
  readonly keepState?: boolean
  /** Default: `unknown`. */
  readonly pairing?: PairingRule
}

export interface LabNetwork {
  readonly netns: Netns
  readonly server: ServerProcess
  /** Where the API asks for a token, for a way in from outside. */
  readonly extraSocket: string
  readonly folder: string
  /**
   * Switches a machine on, which is plugged in by then. One of the same name that was switched off before is the same
   * machine: it has its firmware variables. Throws KitError `conflict` while that one is on. `pairing`, for this start of it:
   * default as for all.
   */
  powerOn(spec: MachineSpec, pairing?: PairingRule): Promise<Vm>
  /**
   * The same for a machine that is a container: the image's own root and the initrd's steps under systemd-nspawn. Mode `server`
   * only: its firmware takes the boot script from the lease. Throws KitError `unavailable` where this host cannot have any.
   */
  powerOnContainer(spec: ContainerSpec, pairing?: PairingRule): Promise<Container>
  /** Why machines that asked for it were not paired by themselves; one line each. */
  pairingProblems(): readonly string[]
  /** Machines, server, router, namespace, in this order; nothing is left but files. */
  stop(): Promise<void>
}

export const LAB_BRIDGE = 'kit0'
const LAB_SERVER_IP = '10.77.0.1'
const ROUTER_IP = '10.77.0.254'
const POOL_FIRST = '10.77.0.100'
const POOL_LAST = '10.77.0.199'
const ROUTER_GRACE_MS = 2_000

/** Where the command line looks for a lab, inside its folder. */
export function labControlSocket(folder: string): string {
  return join(folder, 'control.sock')
}

/** Everything is up and answering when it resolves; when it throws, nothing is left running. */
export async function startLabNetwork(options: LabNetworkOptions): Promise<LabNetwork> {
  const { folder } = options
  await prepareFolder(options)
  const netns = await createNetns()
  const extraSocket = join(folder, 'api.sock')
  const server = createServerProcess(netns, {
    environment: { ...serverEnvironment(options, extraSocket), ...options.environment },
    controlSocket: labControlSocket(folder),
    logFile: join(folder, 'server.log'),
  })
  const services = [
    namespaceService(netns),
    ...(options.mode === 'proxy' ? [routerService(netns, folder)] : []),
    server,
  ]
  await startAll(services)
  const sockets = new WallSockets({ netns, bridge: LAB_BRIDGE, folder })
  const containers = new ContainerSockets({ netns, bridge: LAB_BRIDGE, folder })
  const pairings: Pairing[] = []
  const pairBySight = (machine: Pick<Vm, 'serial' | 'exited'>, rule: PairingRule) => {
    if (rule === 'off') return
    const pairing = pairByConsole({ serial: machine.serial, client: server.client, rule })
    pairings.push(pairing)
    void machine.exited.then(() => pairing.stop())
  }
  return {
    netns,
    server,
    extraSocket,
    folder,
    async powerOn(spec, rule = options.pairing ?? 'unknown') {
      const vm = await sockets.powerOn(spec)
      pairBySight(vm, rule)
      return vm
    },
    async powerOnContainer(spec, rule = options.pairing ?? 'unknown') {
      const container = await containers.powerOn(spec)
      pairBySight(container, rule)
      return container
    },
    pairingProblems: () => pairings.flatMap((pairing) => pairing.problems()),
    async stop() {
      for (const pairing of pairings) await pairing.stop()
      await Promise.all([sockets.powerOffAll(), containers.powerOffAll()])
      await stopAll(services)
    },
  }
}

async function prepareFolder(options: LabNetworkOptions): Promise<void> {
  // An empty folder of settings: what a person has configured for a real LAN has no say here.
  await mkdir(join(options.folder, 'config'), { recursive: true })
  if (options.keepState === true) return
  for (const name of await readdir(options.folder)) {
    if (LEFT_BEHIND.test(name)) await rm(join(options.folder, name), { recursive: true, force: true })
  }
}

/** Of the server, the router and the machines (lab-machines.ts); the folder may have other things in it. */
const LEFT_BEHIND =
  /^(state|bundles|images|keys|registry|server\.log|router\.leases|router\.log|container-images|(uefi|bios|container)(-\d)?\.(log|vars\.fd|disk|folders))$/

function serverEnvironment(options: LabNetworkOptions, extraSocket: string): Record<string, string> {
  const { folder, mode, profilesFolder } = options
  return {
    KATESKIT_CONFIG: join(folder, 'config'),
    KATESKIT_DHCP_INTERFACE: LAB_BRIDGE,
    KATESKIT_DHCP_IP: LAB_SERVER_IP,
    KATESKIT_DHCP_MODE: mode,
    ...(mode === 'server' && { KATESKIT_DHCP_POOL: `${POOL_FIRST}-${POOL_LAST}` }),
    KATESKIT_HTTP_CONTROL_SOCKET: labControlSocket(folder),
    KATESKIT_HTTP_EXTRA_SOCKET: extraSocket,
    KATESKIT_PROFILES_DIRECTORY: profilesFolder,
    KATESKIT_STATE_DIRECTORY: join(folder, 'state'),
    KATESKIT_BUNDLES_DIRECTORY: join(folder, 'bundles'),
    KATESKIT_IMAGES_DIRECTORY: join(folder, 'images'),
    KATESKIT_KEYS_DIRECTORY: join(folder, 'keys'),
    KATESKIT_REGISTRY_DIRECTORY: join(folder, 'registry'),
  }
}

function namespaceService(netns: Netns): Service {
  return {
    name: 'namespace',
    start: () => addBridge(netns, { name: LAB_BRIDGE, address: `${LAB_SERVER_IP}/24` }),
    stop: () => netns.stop(),
  }
}

/** The router is another host: a namespace of its own on a cable to the bridge. */
function routerService(netns: Netns, folder: string): Service {
  let host: Netns | undefined
  let router: Child | undefined
  return {
    name: 'router',
    async start() {
      host = await createNetns()
      await addCable(netns, LAB_BRIDGE, { netns: host, interfaceName: 'lan0', address: `${ROUTER_IP}/24` })
      router = startRouter({
        ...{ netns: host, interfaceName: 'lan0', address: ROUTER_IP, folder },
        ...{ poolFirst: POOL_FIRST, poolLast: POOL_LAST },
      })
    },
    async stop() {
      await router?.stop(ROUTER_GRACE_MS)
      await host?.stop()
    },
  }
}
