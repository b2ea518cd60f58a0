// Tests of events as a stream: nothing missed, nothing twice, nothing left behind.

import { once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import { get } from 'node:https'
import { connect } from 'node:tls'

import test from 'ava'

import type { Clock } from '#lib/clock.ts'
import { systemClock } from '#lib/clock.ts'
import { parseMac } from '#lib/mac.ts'
import { SseParser } from '#lib/sse.ts'
import { call, type HttpFixture, startHttp, startHttpWithToken } from '#testing/http-fixture.ts'

const MAC = parseMac('52:54:00:12:34:56')

interface Stream {
  readonly response: IncomingMessage
  /** Resolves with the ids of the next so many events. */
  next(count: number): Promise<(string | undefined)[]>
}

async function stream(
  { tlsUrl, authority, headers }: Pick<HttpFixture, 'tlsUrl' | 'authority'> & { headers: object },
  path: string,
  extra: object = {},
): Promise<Stream> {
  const request = get(`${tlsUrl}/api/v1/events${path}`, {
    ca: authority.pem,
    headers: { ...headers, accept: 'text/event-stream', ...extra },
  })
  const [response] = (await once(request, 'response')) as [IncomingMessage]
  const parser = new SseParser()
  const chunks = response.setEncoding('utf8')[Symbol.asyncIterator]()
  const ready: (string | undefined)[] = []
  return {
    response,
    async next(count) {
      while (ready.length < count) {
        const { value, done } = await chunks.next()
        if (done) break
        ready.push(...parser.push(value).map(({ id }) => id))
      }
      return ready.splice(0, count)
    },
  }
}

const numbers = (first: number, last: number) =>
  Array.from({ length: last - first + 1 }, (_, n) => `${first + n}`)

async function addEvents({ store }: Pick<HttpFixture, 'store'>, count: number): Promise<void> {
  const add = () => store.events.append({ kind: 'server-started', mac: MAC, message: 'x'.repeat(100) })
  await Promise.all(Array.from({ length: count }, add))
}

test('the event stream resumes after Last-Event-ID, without a gap or a double while events pour in', async (t) => {
  const http = await startHttpWithToken(t)
  await addEvents(http, 1_700)
  const pouring = addEvents(http, 800)
  const resumed = await stream(http, '', { 'last-event-id': '40' })
  t.is(resumed.response.headers['content-type'], 'text/event-stream')
  const more = addEvents(http, 500)
  t.deepEqual(await resumed.next(2_960), numbers(41, 3_000))
  await Promise.all([pouring, more])
  resumed.response.destroy()
})

test('the event stream shows a slow reader of old events what happens meanwhile too', async (t) => {
  const http = await startHttpWithToken(t)
  const data = { log: 'x'.repeat(15_000) }
  const add = (count: number) =>
    Promise.all(
      Array.from({ length: count }, () =>
        http.store.events.append({ kind: 'step-failed', message: '', data }),
      ),
    )
  await add(400) // 6 MB, more than the sockets take
  const slow = await stream(http, '?after=0')
  await add(300)
  t.deepEqual(await slow.next(700), numbers(1, 700))
  slow.response.destroy()
})

test('a stop of the service ends a stream that is still being told old events', async (t) => {
  const events = Promise.withResolvers<HttpFixture>()
  const filled = await startHttpWithToken(t)
  await addEvents(filled, 300)
  const { store } = filled
  const http = await startHttp(t, {
    tokens: store.tokens,
    events: {
      ...store.events,
      async list(query) {
        const page = await store.events.list(query)
        void (await events.promise).service.stop()
        return page
      },
    },
  })
  events.resolve(http)
  const { response } = await stream({ ...http, headers: filled.headers }, '?after=0')
  response.resume()
  await once(response, 'end')
  t.pass()
})

test('a reader of events who leaves while the token is looked up leaves nothing behind', async (t) => {
  const subscribed: unknown[] = []
  const verifying = Promise.withResolvers<void>()
  const left = Promise.withResolvers<void>()
  const http = await startHttpWithToken(t)
  const { store } = http
  const slow = await startHttp(t, {
    events: { ...store.events, subscribe: (listener) => subscribed.push(listener) as never },
    tokens: {
      ...store.tokens,
      async verify(secret) {
        verifying.resolve()
        await left.promise
        return store.tokens.verify(secret)
      },
    },
  })
  const request = get(`${slow.tlsUrl}/api/v1/events`, {
    ca: slow.authority.pem,
    headers: { ...http.headers, accept: 'text/event-stream' },
  })
  request.on('error', () => {})
  await verifying.promise
  request.destroy()
  await call(`${slow.url}/healthz`) // by its answer the server has seen the other connection end
  left.resolve()
  await slow.service.stop()
  t.deepEqual(subscribed, [])
})

test('the event stream begins with the next event, or after the one asked for, of one machine if asked', async (t) => {
  const http = await startHttpWithToken(t)
  await addEvents(http, 3)
  const fresh = await stream(http, '')
  const after = await stream(http, '?after=2')
  const other = await stream(http, '?after=0&mac=52-54-00-00-00-01')
  await http.store.events.append({ kind: 'server-started', message: 'of no machine' })
  await http.store.events.append({ kind: 'step-done', mac: parseMac('52:54:00:00:00:01'), message: '' })
  t.deepEqual(await fresh.next(2), ['4', '5'])
  t.deepEqual(await after.next(3), ['3', '4', '5'])
  t.deepEqual(await other.next(1), ['5'])
  for (const { response } of [fresh, after, other]) response.destroy()
})

test('the event stream beats while nothing happens, and ends when the service stops', async (t) => {
  const timers: (() => void)[] = []
  const clock: Clock = {
    ...systemClock,
    after(delayMs, action) {
      if (delayMs !== 15_000) return systemClock.after(delayMs, action)
      timers.push(action)
      return () => {}
    },
  }
  const http = await startHttpWithToken(t, { clock })
  const { response } = await stream(http, '')
  timers.shift()?.()
  const [beat] = await once(response, 'data')
  t.regex(`${beat}`, /^: .+\n\n/)
  t.is(timers.length, 1)
  const ended = once(response, 'end')
  response.resume()
  await http.service.stop()
  await ended
})

test('a reader of events that does not read is cut off', async (t) => {
  const http = await startHttpWithToken(t)
  const socket = connect({ host: '127.0.0.1', port: http.tlsPort, ca: http.authority.pem })
  socket.write(
    `GET /api/v1/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nAuthorization: ${http.headers.authorization}\r\n\r\n`,
  )
  await once(socket, 'data')
  socket.pause()
  const closed = once(socket, 'close')
  socket.on('error', () => {})
  const add = () =>
    http.store.events.append({ kind: 'step-failed', message: '', data: { log: 'x'.repeat(15_000) } })
  for (let n = 0; n < 10; n++) await Promise.all(Array.from({ length: 100 }, add))
  socket.resume()
  await closed
  t.pass()
})
