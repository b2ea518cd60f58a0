// The commands about which machine is which, against a real HTTP service, and what they print.

import test from 'ava'

import { parseIpv4 } from '#lib/ipv4.ts'
import { parseMac } from '#lib/mac.ts'
import type { Attempt, Identity } from '#machine/identity.ts'
import type { MachineView } from '#machine/ports.ts'
import { cli } from '#testing/cli-fixture.ts'
import { startHttpWithReleases } from '#testing/http-fixture.ts'

import { renderIdentities } from './render-identities.ts'

const MAC = parseMac('52:54:00:12:34:56')
const OTHER = parseMac('52:54:00:12:34:57')
const VIEW: MachineView = {
  ...{ mac: MAC, state: 'running', stateSinceMs: 0, firstSeenMs: 0, lastSeenMs: 0, rebootReasons: [] },
  ...{ role: 'worker', channel: 'stable', hostname: 'one' },
}
const ATTEMPT: Attempt = {
  ...{ id: 'a1', mac: MAC, address: parseIpv4('10.0.0.9'), state: 'waiting', isConflict: true },
  ...{ keySha256: 'd'.repeat(64), sinceMs: 0 },
}

const IDENTITY: Identity = {
  ...{ mac: MAC, macs: [MAC, OTHER], tier: 'paired', keySha256: 'c'.repeat(64), sinceMs: 0 },
  ...{ by: 'control socket', certificateUntilMs: 600_000 },
}

test('renderIdentities() shows who is known, who waits, and which TPMs are approved', (t) => {
  t.deepEqual(renderIdentities({ identities: [], attempts: [], approvals: [] }, 0), [
    'No machine has proved who it is yet.',
  ])
  const approval = { ekSha256: 'e'.repeat(64), by: 'token lab (1)', sinceMs: 0 }
  t.deepEqual(
    renderIdentities({ identities: [IDENTITY], attempts: [ATTEMPT], approvals: [approval] }, 5_000),
    [
      'MAC                TIER    SINCE    BY              CERTIFICATE  KEY               OTHER MACS',
      `${MAC}  paired  5 s ago  control socket  for 10 min   cccccccccccccccc  ${OTHER}`,
      '',
      'WAITING            FROM      SINCE    KEY               TPM',
      `${MAC}  10.0.0.9  5 s ago  dddddddddddddddd  -`,
      `    another key than the known one: kateskit pair ${MAC} <code on its console> --replace, or leave it out`,
      '',
      `${'APPROVED TPM'.padEnd(64)}  BY             SINCE`,
      `${'e'.repeat(64)}  token lab (1)  5 s ago`,
    ],
  )
})

test('pair, approve and forget do what they say, and pass on why not', async (t) => {
  const server = await startHttpWithReleases(t)
  const { run } = cli({ KATESKIT_HTTP_CONTROL_SOCKET: server.socketFile })
  server.knowMachine(VIEW)
  server.people.identities.push(IDENTITY)
  t.regex((await run('identities')).out, /^MAC .*\n52:54:00:12:34:56 {2}paired/)
  t.like(JSON.parse((await run('identities', '--json')).out), { identities: [{ mac: MAC }] })
  t.is((await run('pair', 'one', 'K7M-2QX')).out, `${MAC} is taken in, paired\n`)
  const wrong = await run('pair', MAC, 'AAA-AAA', '--replace')
  t.is(wrong.err, `error: Cannot pair ${MAC}: the code is wrong; 2 more tries\n`)
  t.is((await run('approve', 'E'.repeat(64))).out, `The TPM ${'e'.repeat(64)} is approved\n`)
  t.regex((await run('approve', 'one')).out, /^The TPM (?:cd){32} is approved/)
  t.is((await run('approve', 'e'.repeat(64), '--withdraw')).code, 0)
  t.is((await run('approve', 'one', '--withdraw')).code, 2)
  t.regex((await run('forget', 'one')).out, /must prove anew/)
  const by = 'control socket'
  t.deepEqual(server.people.calls, [
    ['pair', MAC, 'K7M-2QX', { replace: false, by }],
    ['pair', MAC, 'AAA-AAA', { replace: true, by }],
    ['approve', { ekSha256: 'e'.repeat(64) }, by],
    ['approve', { mac: MAC }, by],
    ['withdraw', 'e'.repeat(64)],
    ['forget', MAC, by],
  ])
})
