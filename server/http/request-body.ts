// Request bodies: JSON, bounded, and checked against the shape that was expected.

import type { IncomingMessage } from 'node:http'

import type { z } from 'zod'

import { KitError } from '#lib/errors.ts'

interface ReadOptions<Shape> {
  readonly shape: Shape
  readonly maxBytes: number
  /** No body at all counts as `{}`. */
  readonly isOptional?: boolean
}

/**
 * Reads a JSON body of at most `maxBytes` that has `shape`; fields the shape does not name are dropped. Whatever the
 * Content-Type says: busybox's wget can only send forms. Throws KitError `too-large` or `invalid-input`.
 */
export async function readBody<Shape extends z.ZodType>(
  request: IncomingMessage,
  { shape, maxBytes, isOptional = false }: ReadOptions<Shape>,
): Promise<z.output<Shape>> {
  const text = await readText(request, maxBytes)
  const outcome = shape.safeParse(isOptional && text.trim() === '' ? {} : parseJson(text))
  if (outcome.success) return outcome.data
  const problems = outcome.error.issues.map(
    ({ path, message }) => `${path.join('.') || 'the body'}: ${message}`,
  )
  throw new KitError('invalid-input', `Cannot take this body: ${problems.join('; ')}`)
}

async function readText(request: IncomingMessage, maxBytes: number): Promise<string> {
  const refusal = new KitError('too-large', `Cannot take this body: it is larger than ${maxBytes} bytes`)
  if (Number(request.headers['content-length'] ?? 0) > maxBytes) throw refusal
  const chunks: Buffer[] = []
  let size = 0
  // Not destroyed when left early: the refusal still has to go out on the same connection.
  for await (const chunk of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size > maxBytes) throw refusal
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw new KitError('invalid-input', 'Cannot take this body: it is not JSON')
  }
}
