// Who gets secrets and who does not: a machine with a TPM, one without, a disk in another machine, and somebody with another's MAC.

import { join } from 'node:path'

import test from 'ava'

import { LAB_BRIDGE } from '#lab/lab-network.ts'
import { findPairingLines } from '#lab/pairing.ts'
import type { Vm } from '#lab/vm.ts'
import type { Mac } from '#lib/mac.ts'
import type { MachineView } from '#machine/ports.ts'
import { makeSwtpmWithCertificate } from '#testing/swtpm.ts'

import { BOOT_TIMEOUT_MS } from './event-watch.ts'
import {
  identityOf,
  OTHER,
  OWN,
  openScene,
  refusalInAudit,
  type Scene,
  SECRETS,
  SHARED,
  searchAll,
} from './identity-scene.ts'
import { startImpostor } from './impostor.ts'
import { machineDisk, withDisk } from './installed-lan.ts'
import { fingerprint } from './machine-disk.ts'
import { keyNeedle } from './planted.ts'
import type { Replayed } from './replay-wire.ts'
import { BIOS, UEFI } from './test-lan.ts'

test('secrets reach the machine that has proved who it is, and nobody else', async (t) => {
  const began = Date.now()
  const tell = (what: string) =>
    t.log(`${what}: ${Math.round((Date.now() - began) / 1000)} s after the start`)
  const scene = await openScene(t)
  const { person } = scene
  const [uefi, bios] = await install(scene)
  tell('both are installed and have their secrets')
  await approve(scene)
  await restartAlone(scene, bios)
  await renew(scene)
  tell('one has started without the server, both have new certificates')
  await bios.kill()
  const moved = await moveDisk(scene, 'network-first')
  tell('its disk in another machine was refused')
  const impostor = await spoof(scene)
  tell('the impostor was refused')
  await uefi.kill()
  await replay(scene)
  tell('what machines said in the clear was said again, for nothing')
  const started = await moveDisk(scene, 'disk-first')
  tell('what started from the disk in another machine was refused')
  await person.does('audit', 'verify')
  await searchAll(
    scene,
    [uefi, bios, moved, impostor, started].map(({ serial }) => serial.text),
  )
  tell('everything is searched')
})

async function install({ t, lan, needles }: Scene): Promise<readonly [Vm, Vm]> {
  const tpm = join(lan.network.folder, 'tpm')
  await makeSwtpmWithCertificate(tpm)
  const vms = await Promise.all([
    lan.powerOn(UEFI, { ...withDisk(lan, UEFI), tpm: { stateFolder: join(tpm, 'state') } }),
    lan.powerOn(BIOS, withDisk(lan, BIOS)),
  ])
  for (const [{ mac }, tier, secret] of [
    [UEFI, 'tpm-first-use', SECRETS.uefi],
    [BIOS, 'paired', SECRETS.bios],
  ] as const) {
    const issued = await lan.waitFor('identity-issued', mac)
    t.like(issued.data, { tier, by: 'control socket' })
    await lan.waitFor('slot-good', mac)
    await lan.waitFor('secrets-sent', mac)
    await lan.waitFor('step-done', mac, ({ data }) => data['step'] === 'secrets')
    const proved = await lan.waitFor('step-done', mac, ({ data }) => data['step'] === '25-identity')
    t.log(`${mac} proved who it is, a person in between, in ${proved.data['seconds']} s`)
    const machine = await lan.network.server.client.machine(mac)
    t.like(machine, { state: 'running', slot: 'a', identity: { tier } })
    const modes = await lan.onMachine(
      machine,
      `stat -c '%a %U' ${OWN} ${SHARED} /persist/machine/secrets.tar`,
    )
    t.deepEqual(modes.split('\n'), ['600 root', '600 root', '600 root'])
    t.is(await lan.onMachine(machine, `cat ${OWN} ${SHARED}`), secret + SECRETS.shared)
    const key = await lan.onMachine(machine, 'cat /persist/machine/identity/key.pem')
    t.is(
      key.split('\n')[0],
      mac === UEFI.mac ? '-----BEGIN TSS2 PRIVATE KEY-----' : '-----BEGIN PRIVATE KEY-----',
    )
    needles.push(keyNeedle(`the key of ${mac}`, key))
    const words = await lan.onMachine(machine, 'cat /proc/cmdline; journalctl --boot --output=cat')
    t.deepEqual(
      needles.filter(({ forms }) => forms.some((form) => words.includes(form))),
      [],
    )
  }
  return vms
}

async function approve({ t, lan, person }: Scene): Promise<void> {
  await person.does('approve', UEFI.mac)
  await lan.waitFor('tpm-approved', UEFI.mac)
  t.like(await identityOf(person, UEFI.mac), { tier: 'tpm-approved' })
}

async function restartAlone({ t, lan }: Scene, bios: Vm): Promise<void> {
  const { server } = lan.network
  await lan.onMachine(await server.client.machine(BIOS.mac), 'systemctl reboot --no-block')
  await server.stop()
  const said = bios.serial.text.length
  const [line] = await bios.serial.waitFor(/kit-test: .*before the network/, BOOT_TIMEOUT_MS, said)
  t.is(line, `kit-test: 600 ${SECRETS.bios.length} bytes, before the network`)
}

/** The server comes back with the right time: more than half of the certificates' lives is over. */
async function renew({ t, lan, person, clock }: Scene): Promise<void> {
  const { server } = lan.network
  await clock.setRight()
  await server.start()
  for (const { mac } of [UEFI, BIOS]) {
    const [issued] = await lan.events('identity-issued', mac)
    const renewed = await lan.waitFor('certificate-renewed', mac)
    t.is(renewed.data['key'], issued?.data['key'])
    t.is(renewed.data['tier'], mac === UEFI.mac ? 'tpm-approved' : 'paired')
    t.like(renewed.data, { certificateUntilMs: (await identityOf(person, mac))?.certificateUntilMs ?? 0 })
  }
  const bios = await lan.untilRunning(BIOS.mac)
  const state = 'systemctl show --value --property=Result kit-secrets.service; cat /etc/kit-test/own'
  t.is(await lan.onMachine(bios, state), `success\n${SECRETS.bios}`)
}

/** The disk of BIOS in another machine, which starts from the network, or from that disk. Resolves with it, off. */
async function moveDisk({ t, lan, person }: Scene, bootOrder: 'network-first' | 'disk-first'): Promise<Vm> {
  const disk = machineDisk(lan, BIOS)
  const before = await fingerprint(disk.file)
  const known = await identityOf(person, BIOS.mac)
  const later = await lan.fromNow()
  const vm = await lan.powerOn(OTHER, { disks: [disk], bootOrder, memoryMiB: 1024 })
  const reason = /its key is known as that of another machine/
  await vm.waitFor(reason, BOOT_TIMEOUT_MS)
  // The same again is no news: the history has it of the first time only.
  const conflict = await lan.waitFor('identity-conflict', OTHER.mac)
  t.regex(conflict.message, reason)
  t.is(conflict.data['key'], known?.keySha256)
  await vm.kill()
  await isRefused({ t, person }, OTHER.mac)
  t.is(await identityOf(person, OTHER.mac), undefined)
  t.deepEqual(await identityOf(person, BIOS.mac), known)
  for (const { mac } of [OTHER, BIOS]) {
    t.is((await later.events('secrets-sent', mac)).length, 0)
    t.is((await later.events('checked-in', mac)).length, 0)
  }
  if (bootOrder === 'network-first') t.is(await fingerprint(disk.file), before, 'nothing is written to it')
  return vm
}

/** Resolves with the impostor, off. */
async function spoof({ t, lan, person }: Scene): Promise<Vm> {
  const { mac } = UEFI
  const before = await identityOf(person, mac)
  const sent = (await lan.events('secrets-sent', mac)).length
  const later = await lan.fromNow()
  const { fingerprint: caFingerprint } = JSON.parse(await person.does('ca', '--json')) as {
    fingerprint: string
  }
  const vm = await startImpostor(lan, { mac, caFingerprint })
  await vm.waitFor(/kit: pairing code .*--replace\n/, BOOT_TIMEOUT_MS)
  const code = findPairingLines(vm.serial.text).at(-1)?.code ?? ''
  t.regex(await person.failsTo('pair', mac, code), /known by another key/)
  t.regex(await person.does('identities'), new RegExp(`another key than the known one: kateskit pair ${mac}`))
  await later.waitFor('pairing-waiting', mac, ({ data }) => data['replace'] === true)
  const conflict = await later.waitFor('identity-conflict', mac)
  t.not(conflict.data['key'], before?.keySha256)

  const said = vm.serial.text.length
  const wrong = code.startsWith('000') ? '111-111' : '000-000'
  for (const _ of [1, 2, 3]) await person.failsTo('pair', mac, wrong, '--replace')
  t.regex(await person.failsTo('pair', mac, code, '--replace'), /no code of it waits/)
  await later.waitFor('pairing-failed', mac, ({ data }) => data['left'] === 0)
  // Or the answer went to the true machine, which has the same MAC: it begins anew then.
  await vm.serial.waitFor(/a wrong code was typed three times|kit: pairing code/, BOOT_TIMEOUT_MS, said)

  // The true machine goes on, beside somebody with its MAC and address.
  await lan.writeProfile({ 'roles/worker/root/etc/kit-test/role': 'worker, changed\n' })
  await later.waitFor('bundle-applied', mac)
  await isRefused({ t, person }, mac)
  await vm.kill()
  t.deepEqual(await identityOf(person, mac), before)
  t.is((await lan.events('secrets-sent', mac)).length, sent)
  t.is((await lan.events('identity-issued', mac)).length, 1)
  return vm
}

/** Of no use to somebody who has heard all of it: the installs, the starts, and everything since. */
async function replay({ t, lan, person }: Scene): Promise<void> {
  const { folder, netns, server } = lan.network
  await netns.run('ip', ['address', 'add', '10.77.0.66/24', 'dev', LAB_BRIDGE])
  const state = async () => ({
    machines: await Promise.all([UEFI, BIOS].map(({ mac }) => server.client.machine(mac))),
    identities: await person.does('identities', '--json'),
  })
  const before = await state()
  const later = await lan.fromNow()
  const script = join(import.meta.dirname, 'replay-wire.ts')
  const said = await netns.run(process.execPath, [
    script,
    ...[join(folder, 'wire.pcap'), '10.77.0.1', '8080', '10.77.0.66'],
  ])
  const { connections, requests, statuses } = JSON.parse(said) as Replayed
  t.log(`${requests} requests of ${connections} connections, by status:`, statuses)
  t.true(requests > 30, 'two installs are in the capture')
  const after = await state()
  for (const [index, machine] of after.machines.entries())
    t.deepEqual({ ...machine, ...before.machines[index], ...anybodysWord(machine) }, machine)
  t.deepEqual({ ...after, machines: [] }, { ...before, machines: [] })
  for (const { mac } of [UEFI, BIOS]) {
    for (const kind of ['secrets-sent', 'identity-issued', 'checked-in', 'slot-good'] as const)
      t.is((await later.events(kind, mac)).length, 0, `${kind} of ${mac}`)
  }
}

/** That it was seen, and where: only for show. */
function anybodysWord({ lastSeenMs, address, firmware }: MachineView): Partial<MachineView> {
  return { lastSeenMs, ...(address && { address }), ...(firmware && { firmware }) }
}

async function isRefused({ t, person }: Pick<Scene, 't' | 'person'>, mac: Mac): Promise<void> {
  const entry = await refusalInAudit(person, mac)
  t.is(entry?.outcome, 'identity-refused')
  t.regex(entry?.actor ?? '', /^anonymous 10\.77\.0\./)
}
