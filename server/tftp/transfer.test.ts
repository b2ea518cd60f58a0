// The transfer's decisions, without a socket: tables for single steps, a simulated lossy link for the whole.

import test from 'ava'
import fc from 'fast-check'

import {
  advanceTransfer,
  beginTransfer,
  RETRY_POLICY,
  type Step,
  type TransferAction,
  type TransferEvent,
  type TransferOutcome,
  type TransferPlan,
} from './transfer.ts'

const plan = (
  overrides: Partial<TransferPlan & { block: number; window: number; timeout: number }> = {},
) => ({
  parameters: {
    blockBytes: overrides.block ?? 512,
    windowBlocks: overrides.window ?? 1,
    timeoutSeconds: overrides.timeout,
  },
  sizeBytes: overrides.sizeBytes ?? 5120,
  oack: overrides.oack ?? false,
  sizeAsked: overrides.sizeAsked ?? false,
})

const ack = (block: number): TransferEvent => ({ kind: 'ack', block })
const timeout: TransferEvent = { kind: 'timeout' }
const abort: TransferEvent = { kind: 'error', code: 8, message: 'User aborted the transfer' }

/** What was done, in short: `oack`, `1-4` for blocks, `end <outcome>`; waits only where they are asked for. */
function brief(actions: readonly TransferAction[], waits = false): readonly string[] {
  return actions.filter(({ kind }) => waits || kind !== 'wait').map(briefly)
}

function briefly(action: TransferAction): string {
  switch (action.kind) {
    case 'send-oack':
      return 'oack'
    case 'send-blocks':
      return `${action.first}-${action.last}`
    case 'wait':
      return `wait ${action.delayMs}`
    case 'end':
      return `end ${action.outcome.kind}`
  }
}

function play(start: TransferPlan, events: readonly TransferEvent[]): readonly (readonly string[])[] {
  let step: Step = beginTransfer(start, RETRY_POLICY)
  const log = [brief(step.actions)]
  for (const event of events) {
    step = advanceTransfer(step.transfer, event, RETRY_POLICY)
    log.push(brief(step.actions))
  }
  return log
}

const stories: readonly (readonly [
  title: string,
  start: TransferPlan,
  events: readonly TransferEvent[],
  log: readonly (readonly string[])[],
])[] = [
  [
    'ends with an empty block when the size is a multiple of the block',
    plan({ sizeBytes: 1024 }),
    [ack(1), ack(2), ack(3)],
    [['1-1'], ['2-2'], ['3-3'], ['end complete']],
  ],
  [
    'sends one empty block when the file is empty',
    plan({ sizeBytes: 0 }),
    [ack(1)],
    [['1-1'], ['end complete']],
  ],
  [
    'waits for ACK 0 when options were granted',
    plan({ sizeBytes: 100, oack: true }),
    [ack(1), ack(0), ack(1)],
    [['oack'], [], ['1-1'], ['end complete']],
  ],
  [
    'slides by whole windows when nothing is lost (RFC 7440)',
    plan({ window: 4 }),
    [ack(4), ack(8), ack(11)],
    [['1-4'], ['5-8'], ['9-11'], ['end complete']],
  ],
  [
    'goes on behind the ACK when it comes from the middle of the window (RFC 7440 §4)',
    plan({ window: 4 }),
    [ack(2), ack(6)],
    [['1-4'], ['3-6'], ['7-10']],
  ],
  [
    'sends the window again once when its first block was lost, and no more',
    plan({ window: 4 }),
    [ack(4), ack(4), ack(4), ack(4), ack(8)],
    [['1-4'], ['5-8'], ['5-8'], [], [], ['9-11']],
  ],
  [
    'does not take the echo of a window sent twice for a loss',
    plan({ window: 2 }),
    [timeout, ack(2), ack(2), ack(4), ack(4), ack(4)],
    [['1-2'], ['1-2'], ['3-4'], [], ['5-6'], ['5-6'], []],
  ],
  [
    'does not answer a repeated ACK when one block is in flight (Sorcerer’s Apprentice)',
    plan(),
    [ack(1), ack(1), ack(1), ack(2), ack(1)],
    [['1-1'], ['2-2'], [], [], ['3-3'], []],
  ],
  [
    'ignores ACKs of blocks that were never sent',
    plan({ window: 4 }),
    [ack(5), ack(65_535), ack(32_768)],
    [['1-4'], [], [], []],
  ],
  [
    'sends the same window again on a timeout',
    plan({ window: 4 }),
    [ack(4), timeout],
    [['1-4'], ['5-8'], ['5-8']],
  ],
  [
    'takes an abort for a probe when the size was asked and the OACK is out',
    plan({ oack: true, sizeAsked: true }),
    [abort],
    [['oack'], ['end probed']],
  ],
  [
    'takes an abort for one when data has flowed',
    plan({ oack: true, sizeAsked: true }),
    [ack(0), abort],
    [['oack'], ['1-1'], ['end aborted']],
  ],
  [
    'takes an abort for one when no size was asked',
    plan({ oack: true }),
    [abort],
    [['oack'], ['end aborted']],
  ],
  [
    'gives up after six retransmissions',
    plan(),
    Array.from({ length: 7 }, () => timeout),
    [['1-1'], ['1-1'], ['1-1'], ['1-1'], ['1-1'], ['1-1'], ['1-1'], ['end lost']],
  ],
  [
    'counts silence after a size as a probe',
    plan({ oack: true, sizeAsked: true }),
    Array.from({ length: 7 }, () => timeout),
    [['oack'], ['oack'], ['oack'], ['oack'], ['oack'], ['oack'], ['oack'], ['end probed']],
  ],
]

for (const [title, start, events, log] of stories) {
  test(`advanceTransfer() ${title}`, (t) => {
    t.deepEqual(play(start, events), log)
  })
}

test('advanceTransfer() counts on beyond block 65535, which is 0 on the wire', (t) => {
  let step = beginTransfer(plan({ block: 8, window: 16, sizeBytes: 8 * 70_000 }), RETRY_POLICY)
  let rounds = 0
  while (step.actions[0]?.kind === 'send-blocks') {
    step = advanceTransfer(step.transfer, ack(step.actions[0].last & 0xffff), RETRY_POLICY)
    rounds++
  }
  t.deepEqual(brief(step.actions), ['end complete'])
  t.is(rounds, Math.ceil(70_001 / 16))
})

const delays: readonly (readonly [who: string, timeout: number | undefined, expected: readonly number[]])[] =
  [
    ['the client leaves it to the server', undefined, [1000, 2000, 4000, 8000, 8000]],
    ['the client asks for 3 s', 3, [3000, 6000, 8000, 8000, 8000]],
    ['the client asks for 20 s', 20, [20_000, 20_000, 20_000, 20_000, 20_000]],
  ]

for (const [who, seconds, expected] of delays) {
  test(`advanceTransfer() doubles its wait when ${who}`, (t) => {
    let step = beginTransfer(plan(seconds === undefined ? {} : { timeout: seconds }), RETRY_POLICY)
    const waits: number[] = []
    for (const _ of expected) {
      for (const action of step.actions) if (action.kind === 'wait') waits.push(action.delayMs)
      step = advanceTransfer(step.transfer, timeout, RETRY_POLICY)
    }
    t.deepEqual(waits, expected)
    const answered = advanceTransfer(step.transfer, ack(1), RETRY_POLICY)
    t.deepEqual(brief(answered.actions, true), ['2-2', `wait ${expected[0]}`])
  })
}

/** A client as RFC 7440 §4 has it: acknowledges each full window, the end, and at once whatever is out of order. */
class ModelClient {
  received = 0
  #sinceAck = 0
  readonly #window: number

  constructor(window: number) {
    this.#window = window
  }

  take(block: number, isLast: boolean): number | undefined {
    if (block === this.received + 1) {
      this.received = block
      this.#sinceAck++
      if (this.#sinceAck < this.#window && !isLast) return undefined
    }
    this.#sinceAck = 0
    return this.received
  }
}

/** Plays a transfer over a link that loses what `loses` says; returns how it ended and how many blocks were sent. */
function simulate(
  window: number,
  blocks: number,
  loses: () => boolean,
): { outcome: TransferOutcome; sent: number } {
  const client = new ModelClient(window)
  const patient = { ...RETRY_POLICY, tries: 1000 }
  let step = beginTransfer(plan({ block: 8, window, sizeBytes: blocks * 8 - 1 }), patient)
  let sent = 0
  for (;;) {
    const acks: number[] = []
    for (const action of step.actions) {
      if (action.kind === 'end') return { outcome: action.outcome, sent }
      if (action.kind !== 'send-blocks') continue
      for (let block = action.first; block <= action.last; block++) {
        sent++
        const answer = loses() ? undefined : client.take(block, block === step.transfer.lastBlock)
        if (answer !== undefined && !loses()) acks.push(answer & 0xffff)
      }
    }
    step = advanceAll(step, acks, patient)
  }
}

/** All ACKs that came of one burst, or a timeout when none did. */
function advanceAll(step: Step, acks: readonly number[], policy: typeof RETRY_POLICY): Step {
  let { transfer } = step
  const actions: TransferAction[] = []
  for (const event of acks.length === 0 ? [timeout] : acks.map(ack)) {
    const next = advanceTransfer(transfer, event, policy)
    transfer = next.transfer
    actions.push(...next.actions)
  }
  // Nothing came of them (only repetitions): the timer is what is left.
  if (actions.length === 0) return advanceTransfer(transfer, timeout, policy)
  return { transfer, actions }
}

test('advanceTransfer() completes over any lossy link, and sends each block once over a good one', (t) => {
  const losses = fc.infiniteStream(fc.integer({ min: 0, max: 99 }))
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 64 }),
      fc.integer({ min: 1, max: 300 }),
      fc.integer({ min: 0, max: 40 }),
      losses,
      (window, blocks, lossPercent, dice) => {
        const { outcome, sent } = simulate(window, blocks, () => dice.next().value < lossPercent)
        t.is(outcome.kind, 'complete')
        if (lossPercent === 0) t.is(sent, blocks)
      },
    ),
    { numRuns: 200 },
  )
})
