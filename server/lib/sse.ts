// Server-sent events as text (WHATWG HTML §9.2): the reading side.

export interface SseMessage {
  readonly id: string | undefined
  readonly event: string
  readonly data: string
}

/** Feed it text as it arrives, cut anywhere; it gives back the messages that are complete. */
export class SseParser {
  #rest = ''

  push(text: string): SseMessage[] {
    const blocks = (this.#rest + text).replaceAll('\r\n', '\n').split('\n\n')
    this.#rest = blocks.pop() ?? ''
    return blocks.map(parseBlock).filter((message) => message !== undefined)
  }
}

/** Undefined for a block without data, which is how a keep-alive comment looks. */
function parseBlock(block: string): SseMessage | undefined {
  const fields = new Map<string, string[]>()
  for (const line of block.split('\n')) {
    const colon = line.indexOf(':')
    if (colon === 0 || line === '') continue // a comment
    const name = colon < 0 ? line : line.slice(0, colon)
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '')
    fields.set(name, [...(fields.get(name) ?? []), value])
  }
  const data = fields.get('data')
  if (data === undefined) return undefined
  return {
    id: fields.get('id')?.at(-1),
    event: fields.get('event')?.at(-1) ?? 'message',
    data: data.join('\n'),
  }
}
