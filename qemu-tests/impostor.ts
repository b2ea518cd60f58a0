// Somebody on the LAN who starts our kernel, which is public, with words of his own: another machine's MAC above all.

import { join } from 'node:path'

import type { Vm } from '#lab/vm.ts'
import { type Mac, macToPath } from '#lib/mac.ts'

import { DISK_BYTES, imageFolder, type TestLan } from './test-lan.ts'

const SHA256 = '0'.repeat(64)

/** Has neither the TPM nor the disk of the machine that it says it is. Nobody pairs it. */
export async function startImpostor(
  lan: TestLan,
  { mac, caFingerprint }: { readonly mac: Mac; readonly caFingerprint: string },
): Promise<Vm> {
  const image = await imageFolder()
  const words = [
    ...['console=ttyS0', 'panic=10', 'kit.plan=live', 'kit.url=http://10.77.0.1:8080'],
    ...['kit.tls=https://10.77.0.1:8443', `kit.ca=${caFingerprint}`, `kit.mac=${macToPath(mac)}`],
    ...['kit.boot=made-up', 'kit.image=0.1.0', `kit.bundle=${SHA256}`],
    ...[`kit.root-sha256=${SHA256}`, 'kit.root-size=1'],
  ]
  const machine = {
    name: 'impostor',
    mac,
    firmware: 'bios',
    uuid: '6b617465-734b-4974-8000-0badc0ffee00',
  } as const
  return lan.powerOn(machine, {
    pairing: 'off',
    memoryMiB: 1024,
    disks: [{ file: join(lan.network.folder, 'impostor.disk'), sizeBytes: DISK_BYTES }],
    extraArguments: [
      ...['-kernel', join(image, 'vmlinuz'), '-initrd', join(image, 'initrd.img')],
      ...['-append', words.join(' ')],
    ],
  })
}
