// What a token of a grant is good for: one node's certificate, of the machine, its key and the boot that it was made for, and nothing else.

import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import test from 'ava'

import { KitError } from '#lib/errors.ts'
import { type Mac, macToPath } from '#lib/mac.ts'
import { commandOutput, runCommand } from '#lib/process.ts'
import { pollUntil } from '#lib/retry.ts'
import type { MachineView } from '#machine/ports.ts'
import { makeRequest } from '#testing/kube-client.ts'

import { machineFiles } from '../qemu-tests/profile-files.ts'
import { scratchFolder } from '../qemu-tests/test-lan.ts'
import { type ClusterLan, startClusterLan } from './cluster-lan.ts'
import { FIRST, SECOND } from './container-lan.ts'

const API = 'https://10.77.0.50:6443'
const TOKEN = /"tlsBootstrapToken": "([a-z0-9]{6})\.([a-z0-9]{16})"/

test('a token is refused to others, with another key, used twice, for another node, from an old boot, and when its time is over', async (t) => {
  const folder = await scratchFolder(t)
  const lan = await startClusterLan(t, {
    files: {
      'roles/control-plane/node-labels': 'kit-test/made=here\n',
      'roles/worker/node-labels': 'kit-test/made=there\n',
      ...machineFiles(FIRST.mac, { role: 'control-plane\n', ip: '10.77.0.50\n', hostname: 'first\n' }),
      ...machineFiles(SECOND.mac, {
        role: 'worker\n',
        ip: '10.77.0.51\n',
        hostname: 'second\n',
        // The test asks in its place.
        'root/etc/systemd/system/kit-kubernetes.service.d/10-off.conf': '[Unit]\nConditionPathExists=/no\n',
      }),
    },
  })
  await lan.powerOn(FIRST)
  const machine = await lan.powerOn(SECOND)
  await lan.waitFor('node-ready', FIRST.mac)
  const second = await lan.untilRunning(SECOND.mac)
  await lan.getKubeconfig()
  const kube = await strangerAt(lan, folder)
  const kubelet = await makeRequest('/O=system:nodes/CN=system:node:second')
  const keyFile = join(folder, 'kubelet.key')
  await writeFile(keyFile, kubelet.key, { mode: 0o600 })
  const { keySha256: kubeletKey } = kubelet
  const requestFor = (name: string) =>
    commandOutput('openssl', [
      'req',
      '-new',
      '-key',
      keyFile,
      '-subj',
      `/O=system:nodes/CN=system:node:${name}`,
    ])
  const askGrant = (machine: MachineView, as: { mac?: Mac; boot?: string } = {}) =>
    askGrantAs(lan, machine, { kubeletKey, ...as })

  t.is((await askGrant(second, { mac: FIRST.mac })).status, '403', "another machine's")
  t.regex((await lan.waitFor('wrong-machine', SECOND.mac)).message, /02:4b:69:74:00:41/)

  const lost = tokenIn(await askGrant(second))
  t.is(await kube.knows(lost), true)
  const given = tokenIn(await askGrant(second))
  t.not(given, lost, 'an answer that was lost is given again, with another token')
  await kube.forgets(lost)

  const [id = ''] = given.split('.')
  const secret = `bootstrap-token-${id}`
  const expires = await secretValue(lan, secret, 'expiration')
  const minutes = (Date.parse(expires) - Date.now()) / 60_000
  t.true(minutes > 5 && minutes <= 15, `it counts for minutes: ${minutes}`)

  t.is(await kube.asks(given, await requestFor('first'), 'other'), 'Denied', "another node's name")
  const denied = await lan.waitFor('kubelet-denied', SECOND.mac)
  t.regex(denied.message, /system:node:first/)
  const thief = await makeRequest('/O=system:nodes/CN=system:node:second')
  t.is(await kube.asks(given, thief.pem, 'stolen'), 'Denied', 'another machine has come by the token')
  const stolen = await lan.waitFor('kubelet-denied', SECOND.mac, ({ id }) => id > denied.id)
  t.regex(stolen.message, /another key than the machine has made/)
  t.is(await kube.asks(given, kubelet.pem, 'own'), 'Approved')
  await lan.waitFor('kubelet-approved', SECOND.mac)
  t.is(
    await kube.asks(given, await requestFor('second'), 'again'),
    'Denied',
    'a token is good for one certificate',
  )
  const used = await askGrant(second)
  t.is(used.status, '409')
  t.regex(used.text, /"code": ?"grant-used"/)

  const later = await lan.fromNow()
  await machine.reset()
  const again = await later.untilRunning(SECOND.mac)
  const old = await askGrant(again, { boot: second.bootId ?? '' })
  t.is(old.status, '409', 'an old boot asks')
  const fresh = tokenIn(await askGrant(again))
  await kube.forgets(given)
  const past = Buffer.from(new Date(Date.now() - 60_000).toISOString()).toString('base64')
  const patch = JSON.stringify({ data: { expiration: past } })
  await lan.kubectl(
    '-n',
    'kube-system',
    'patch',
    'secret',
    `bootstrap-token-${fresh.slice(0, 6)}`,
    '-p',
    patch,
  )
  await kube.forgets(fresh)
  t.is(await lan.kubectl('get', 'nodes', '-o', 'name'), 'node/first\n')
})

interface Asking {
  readonly mac?: Mac
  readonly boot?: string
  readonly kubeletKey: string
}

interface Answer {
  readonly status: string
  readonly text: string
}

/** Asks for a grant as the machine would, with its certificate: for itself and its boot, unless said otherwise. */
async function askGrantAs(
  lan: ClusterLan,
  machine: MachineView,
  { mac = machine.mac, boot = machine.bootId ?? '', kubeletKey }: Asking,
): Promise<Answer> {
  const { version } = lan.kubernetes
  const asked = { boot, kubernetes: version, node: 'none', kubeletKey, address: machine.address }
  const body = JSON.stringify(asked)
  const answer = await lan.onMachine(
    machine,
    `cd /run/kit/identity && . /run/kit/env && curl -q -sS --cacert ca.pem --cert certificate.pem --key key.pem -w '\\nstatus %{http_code}' \
      -H 'Content-Type: application/json' --data '${body}' -o - "$KIT_TLS/v1/machines/${macToPath(mac)}/grant?wait=30" | tr -d '\\000'`,
  )
  const [, text = '', status = ''] = /^(.*)\nstatus (\d+)$/s.exec(answer) ?? []
  return { status, text }
}

function tokenIn({ status, text }: Answer): string {
  const [, id, secret] = TOKEN.exec(text) ?? []
  if (id === undefined) throw new Error(`no token in the answer ${status}: ${text.slice(0, 500)}`)
  return `${id}.${secret}`
}

async function secretValue(lan: ClusterLan, name: string, key: string): Promise<string> {
  const value = await lan.kubectl('-n', 'kube-system', 'get', 'secret', name, '-o', `jsonpath={.data.${key}}`)
  return Buffer.from(value, 'base64').toString()
}

/** Somebody on the LAN who has come by a token. */
async function strangerAt(lan: ClusterLan, folder: string) {
  const authority = join(folder, 'ca.crt')
  const data = '{.clusters[0].cluster.certificate-authority-data}'
  const encoded = await lan.kubectl('config', 'view', '--raw', '-o', `jsonpath=${data}`)
  await writeFile(authority, Buffer.from(encoded, 'base64'))
  const kubectl = join(lan.kubernetes.binFolder, 'kubectl')
  const run = (token: string, ...args: readonly string[]) => {
    const as = ['--server', API, '--certificate-authority', authority, '--token', token]
    const [command, ...rest] = lan.network.netns.commandLine(kubectl, [
      '--kubeconfig',
      '/dev/null',
      ...as,
      ...args,
    ])
    return runCommand(command, rest)
  }
  /** Whether the API takes whoever shows it for somebody. */
  const knows = async (token: string): Promise<boolean> => {
    const { stderr } = await run(token, 'get', 'nodes')
    return !/Unauthorized|must be logged in/.test(stderr)
  }
  return {
    knows,
    /** Resolves when it is worth nothing. The API remembers for 10 s whom it took (kube-apiserver, TokenSuccessCacheTTL). */
    forgets: (token: string): Promise<true> =>
      pollUntil(async () => ((await knows(token)) ? undefined : true), {
        everyMs: 500,
        timeoutMs: 120_000,
        late: () => new KitError('unavailable', `The API still knows the token ${token.slice(0, 6)}`),
      }),
    /** Asks for a kubelet's certificate; resolves with what became of it. */
    async asks(token: string, pem: string, name: string): Promise<string> {
      const file = join(folder, `${name}.json`)
      await writeFile(file, JSON.stringify(requestOf(name, pem)))
      const { exitCode, stderr } = await run(token, 'create', '-f', file)
      if (exitCode !== 0) return `refused: ${stderr}`
      await lan.kubectl('wait', '--for=condition=Approved', `csr/${name}`, '--timeout=20s').catch(() => '')
      return lan.kubectl('get', 'csr', name, '-o', 'jsonpath={.status.conditions[0].type}')
    },
  }
}

function requestOf(name: string, pem: string) {
  return {
    ...{ apiVersion: 'certificates.k8s.io/v1', kind: 'CertificateSigningRequest', metadata: { name } },
    spec: {
      request: Buffer.from(pem).toString('base64'),
      signerName: 'kubernetes.io/kube-apiserver-client-kubelet',
      usages: ['digital signature', 'client auth'],
    },
  }
}
