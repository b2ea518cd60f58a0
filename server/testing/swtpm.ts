// A TPM 2.0 in software (swtpm), asked by tpm2-tools as a machine would.

import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import { type Child, startChild } from '#lib/child.ts'
import { KitError } from '#lib/errors.ts'
import { commandOutput } from '#lib/process.ts'
import { pollUntil } from '#lib/retry.ts'

export interface Swtpm {
  readonly folder: string
  /** Runs a program of tpm2-tools in `folder`, where its files lie. */
  run(command: string, ...args: readonly string[]): Promise<string>
  read(file: string): Promise<Buffer>
  write(file: string, bytes: Uint8Array): Promise<void>
  stop(): Promise<void>
}

/** Swtpm begins with new state when there is none in `<folder>/state`. The path of `folder` must be short: sockets lie in it. */
export async function startSwtpm(folder: string): Promise<Swtpm> {
  const state = join(folder, 'state')
  const socket = join(folder, 'tpm')
  await mkdir(state, { recursive: true })
  const swtpm = startChild('swtpm', [
    ...['socket', '--tpm2', '--tpmstate', `dir=${state}`],
    // The TCTI of tpm2-tools wants both, and this name for the second one (tss2-tcti-swtpm(7)).
    ...['--server', `type=unixio,path=${socket}`, '--ctrl', `type=unixio,path=${socket}.ctrl`],
    // What firmware does on a board.
    ...['--flags', 'not-need-init,startup-clear'],
  ])
  const env = { ...process.env, TPM2TOOLS_TCTI: `swtpm:path=${socket}` }
  const ask = (command: string, args: readonly string[]) => commandOutput(command, args, { cwd: folder, env })
  const run = async (command: string, ...args: readonly string[]) => {
    const output = await ask(command, args)
    // It has room for three objects, and nobody in between who makes room, as the kernel's /dev/tpmrm0 does.
    await ask('tpm2_flushcontext', ['--transient-object'])
    return output
  }
  await answers(swtpm, () => ask('tpm2_getrandom', ['--hex', '1']))
  return {
    folder,
    run,
    read: (file) => readFile(join(folder, file)),
    write: (file, bytes) => writeFile(join(folder, file), bytes),
    stop: () => swtpm.stop(5_000),
  }
}

async function answers(swtpm: Child, ask: () => Promise<unknown>): Promise<void> {
  await pollUntil(
    async () => {
      if (!swtpm.isRunning()) throw new KitError('unavailable', `swtpm ended: ${await swtpm.exited}`)
      return ask().then(
        () => true,
        () => undefined,
      )
    },
    { everyMs: 50, timeoutMs: 20_000, late: () => new KitError('unavailable', 'swtpm does not answer') },
  )
}

/** A new TPM in `<folder>/state` with certificates for its endorsement keys, by a maker whose CA certificates lie in `<folder>/maker`. */
export async function makeSwtpmWithCertificate(folder: string): Promise<{ readonly makerFolder: string }> {
  const state = join(folder, 'state')
  const maker = join(folder, 'maker')
  await mkdir(state, { recursive: true })
  await mkdir(maker, { recursive: true })
  const config = async (name: string, lines: readonly string[]) => {
    await writeFile(join(folder, name), `${lines.join('\n')}\n`)
    return join(folder, name)
  }
  const options = await config('maker.options', ['--platform-manufacturer Tests', '--platform-version 1'])
  const authority = await config('maker.conf', [
    `statedir = ${maker}`,
    `signingkey = ${maker}/signkey.pem`,
    `issuercert = ${maker}/issuercert.pem`,
    `certserial = ${maker}/certserial`,
  ])
  const setup = await config('setup.conf', [
    'create_certs_tool = swtpm_localca',
    `create_certs_tool_config = ${authority}`,
    `create_certs_tool_options = ${options}`,
  ])
  // Without --runas it becomes the user tss, who may not write here.
  await commandOutput('swtpm_setup', [
    ...['--tpm2', '--tpmstate', state, '--create-ek-cert', '--config', setup, '--runas', 'root'],
  ])
  return { makerFolder: maker }
}
