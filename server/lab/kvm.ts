// Whether KVM really works here: found out by letting firmware run under it, not by looking at the device.

import { access, constants, copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

import { startChild } from '#lib/child.ts'
import { type Accelerator, acceleratorArguments, OVMF_CODE, OVMF_VARIABLES } from './qemu.ts'

export interface KvmVerdict {
  readonly works: boolean
  /** Why not; one line for people. */
  readonly reason?: string
}

/** OVMF says this on its serial console under working KVM within 2 s, under TCG within 5. */
const FIRMWARE_SPOKE = /BdsDxe|UEFI Interactive Shell/

const TRIAL_MS = 10_000

export interface ProbeOptions {
  /** The answer is kept here and believed until the next boot of this machine. */
  readonly cacheFile: string
  readonly device?: string
  readonly accelerator?: Accelerator
  /** How long firmware may take to say something. */
  readonly trialMs?: number
}

export async function probeKvm(options: ProbeOptions): Promise<KvmVerdict> {
  const device = options.device ?? '/dev/kvm'
  try {
    await access(device, constants.R_OK | constants.W_OK)
  } catch {
    return { works: false, reason: `${device} is not there or may not be opened` }
  }
  const hostBoot = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim()
  const known = await readVerdict(options.cacheFile, hostBoot)
  if (known !== undefined) return known
  const verdict = await tryFirmware(options.accelerator ?? 'kvm', options.trialMs ?? TRIAL_MS)
  await mkdir(dirname(options.cacheFile), { recursive: true })
  await writeFile(options.cacheFile, JSON.stringify({ hostBoot, verdict }))
  return verdict
}

async function readVerdict(cacheFile: string, hostBoot: string): Promise<KvmVerdict | undefined> {
  try {
    const kept = JSON.parse(await readFile(cacheFile, 'utf8')) as { hostBoot?: string; verdict?: KvmVerdict }
    return kept.hostBoot === hostBoot ? kept.verdict : undefined
  } catch {
    return undefined // no cache, or one that an older version wrote: probe again
  }
}

/** Nested and paravirtual KVM fail in many ways (an assertion, "KVM internal error", silence); firmware that speaks is the proof. */
async function tryFirmware(accelerator: Accelerator, trialMs: number): Promise<KvmVerdict> {
  const folder = await mkdtemp(join(tmpdir(), 'kateskit-kvm-'))
  try {
    const variables = join(folder, 'vars.fd')
    await copyFile(OVMF_VARIABLES, variables)
    const args = [
      ...['-machine', 'q35', '-nodefaults', '-display', 'none', '-m', '256', '-serial', 'stdio'],
      ...acceleratorArguments(accelerator),
      ...['-drive', `if=pflash,format=raw,unit=0,readonly=on,file=${OVMF_CODE}`],
      ...['-drive', `if=pflash,format=raw,unit=1,file=${variables}`],
    ]
    return await bootFirmware(args, trialMs)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

async function bootFirmware(args: readonly string[], trialMs: number): Promise<KvmVerdict> {
  const qemu = startChild('qemu-system-x86_64', args, { stdio: ['ignore', 'pipe', 'pipe'] })
  let said = ''
  let complained = ''
  const verdict = await new Promise<KvmVerdict>((resolve) => {
    const timer = setTimeout(
      () => resolve({ works: false, reason: `firmware said nothing for ${trialMs / 1000} s` }),
      trialMs,
    )
    qemu.process.stdout?.on('data', (chunk: Buffer) => {
      said += chunk.toString('latin1')
      if (FIRMWARE_SPOKE.test(said)) resolve({ works: true })
    })
    qemu.process.stderr?.on('data', (chunk: Buffer) => {
      complained += chunk.toString()
      if (complained.includes('KVM internal error')) resolve({ works: false, reason: 'KVM internal error' })
    })
    void qemu.exited.then((how) =>
      resolve({ works: false, reason: complained.trim().split('\n')[0] || `QEMU ended with ${how}` }),
    )
    qemu.process.once('exit', () => clearTimeout(timer))
  })
  await qemu.kill()
  return verdict
}
