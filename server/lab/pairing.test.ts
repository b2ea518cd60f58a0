// Reading codes off consoles and telling them to a server, without machines.

import { once } from 'node:events'
import { appendFile, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer, type IncomingMessage } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'

import test, { type ExecutionContext } from 'ava'

import { ERROR_STATUS, type ErrorCode } from '#lib/errors.ts'
import { parseMac } from '#lib/mac.ts'

import { findPairingLines, type PairingOptions, pairByConsole } from './pairing.ts'
import { SerialLog } from './serial-log.ts'
import { createServerClient } from './server-client.ts'

const MAC = parseMac('52:54:00:12:34:56')
const line = (code: string, more = '') => `kit: pairing code ${code}: kateskit pair ${MAC} ${code}${more}\n`

test('findPairingLines() finds every code, and whether a person must look at it', (t) => {
  const console = [
    '[    4.1] random: crng init done',
    `[    5.0] ${line('K7M-2QX')}`,
    line('0ZH-9TV', ' --replace'),
    line('K7M-2QX', ' \t'),
    'node login: ',
  ]
  t.deepEqual(findPairingLines(console.join('\n')), [
    { mac: MAC, code: 'K7M-2QX', needsReplace: false },
    { mac: MAC, code: '0ZH-9TV', needsReplace: true },
    { mac: MAC, code: 'K7M-2QX', needsReplace: false },
  ])
})

const NOT_LINES: readonly [string, string][] = [
  ['a line that is not whole', line('K7M-2QX').trimEnd()],
  ['letters that no code has', line('K7M-2QI')],
  ['two codes that differ', `kit: pairing code K7M-2QX: kateskit pair ${MAC} K7M-2QY\n`],
  ['words of the kernel in the middle', `kit: pairing code K7M-2QX: kate[ 5.0] eth0: up\nskit pair ${MAC}\n`],
  ['words glued to its end', line('K7M-2QX', '[    5.0]')],
  ['no address', 'kit: pairing code K7M-2QX: kateskit pair 52:54 K7M-2QX\n'],
]

for (const [title, said] of NOT_LINES) {
  test(`findPairingLines() leaves ${title}`, (t) => t.deepEqual(findPairingLines(said), []))
}

/** A server whose answers to each request to pair are given, and a console that says what is appended to it. */
async function lab(
  t: ExecutionContext,
  answers: readonly (ErrorCode | 'done')[],
  rule?: PairingOptions['rule'],
) {
  const folder = await mkdtemp(join(tmpdir(), 'kit-'))
  const path = join(folder, 'control.sock')
  const asked: string[] = []
  const waiting: (() => void)[] = []
  const server = createServer(async (request: IncomingMessage, response) => {
    asked.push(`${request.method} ${request.url} ${await text(request)}`)
    const answer = answers[asked.length - 1] ?? 'internal'
    response.statusCode = answer === 'done' ? 200 : ERROR_STATUS[answer]
    const error = { code: answer, message: `the answer is ${answer}` }
    response.end(JSON.stringify(answer === 'done' ? {} : { error }), () => waiting.shift()?.())
  })
  const listen = async () => {
    server.listen(path)
    await once(server, 'listening')
  }
  const file = join(folder, 'one.log')
  await writeFile(file, '')
  const serial = new SerialLog(file)
  await serial.follow()
  const client = createServerClient({ kind: 'socket', path })
  const pairing = pairByConsole({ serial, client, rule: rule ?? 'unknown' })
  t.teardown(async () => {
    await pairing.stop()
    await serial.stop()
    server.close()
    await rm(folder, { recursive: true, force: true })
  })
  return {
    ...{ asked, pairing, listen, serial },
    say: (said: string) => appendFile(file, said),
    /** The next answer has gone out. */
    answered: () => new Promise<void>((resolve) => waiting.push(resolve)),
  }
}

const POST = 'POST /api/v1/machines/52-54-00-12-34-56/pair'

test('pairByConsole() tells the server each code once, however often the console repeats it', async (t) => {
  const { asked, pairing, listen, serial, say, answered } = await lab(t, ['not-found', 'done'])
  await listen()
  const first = answered()
  await say(line('K7M-2QX').slice(0, 30))
  await say(line('K7M-2QX').slice(30) + line('K7M-2QX'))
  await first
  const second = answered()
  await say(line('K7M-2QX') + line('AAA-AAA'))
  await second
  await serial.stop() // all that was said has been read
  await pairing.stop()
  t.deepEqual(asked, [`${POST} {"code":"K7M-2QX"}`, `${POST} {"code":"AAA-AAA"}`])
  t.deepEqual(pairing.problems(), [`${MAC}: the answer is not-found`])
})

test('pairByConsole() leaves a machine with another key to a person, unless told otherwise', async (t) => {
  const careful = await lab(t, ['done'])
  await careful.listen()
  const done = careful.answered()
  await careful.say(line('K7M-2QX', ' --replace') + line('AAA-AAA'))
  await done
  t.deepEqual(careful.asked, [`${POST} {"code":"AAA-AAA"}`])
  t.deepEqual(careful.pairing.problems(), [
    `${MAC} is known with another key: kateskit pair ${MAC} K7M-2QX --replace`,
  ])

  const bold = await lab(t, ['done'], 'all')
  await bold.listen()
  const replaced = bold.answered()
  await bold.say(line('K7M-2QX', ' --replace'))
  await replaced
  t.deepEqual(bold.asked, [`${POST} {"code":"K7M-2QX","replace":true}`])
})

test('pairByConsole() waits for a server that does not answer yet, and reads what was said before', async (t) => {
  const { asked, listen, say, serial, answered } = await lab(t, ['unavailable', 'done'])
  await say(line('K7M-2QX'))
  await serial.waitFor(/K7M-2QX\n/, 10_000)
  const done = answered().then(() => answered())
  await listen()
  await done
  t.is(asked.length, 2)
})

test('pairByConsole() ends while it waits for a server', async (t) => {
  const { asked, say, serial, pairing } = await lab(t, [])
  await say(line('K7M-2QX'))
  await serial.waitFor(/K7M-2QX\n/, 10_000)
  await pairing.stop()
  await say(line('AAA-AAA'))
  await serial.waitFor(/AAA-AAA\n/, 10_000)
  t.deepEqual(asked, [])
})
