// What machines may say in free text: bounded, and without what a person's terminal would obey.

import { z } from 'zod'

const SHORT_MAX = 256
/** A reason or a path that is longer is cut: the check-in it came with counts all the same. */
const LINE_MAX = 1024

/** One line. */
export const plain = (text: string): string => text.replace(/\p{Cc}/gu, ' ')

const plainLines = (text: string) => text.replace(/[^\P{Cc}\n\t]/gu, ' ')

export const shortText = z.string().max(SHORT_MAX).transform(plain)

export const messageText = z.string().max(LINE_MAX).transform(plain)

export const logText = z.string().transform(plainLines)

/** Cut instead of refused: a machine on trial must not lose its check-in to a long line. */
export const cutText = z.string().transform((text) => plain(cut(text)))

/** The first `count` of the lines, each cut. */
export const cutTexts = (count: number) =>
  z.array(z.string()).transform((texts) => texts.slice(0, count).map((text) => plain(cut(text))))

function cut(text: string): string {
  return text.length <= LINE_MAX ? text : `${text.slice(0, LINE_MAX - 1)}…`
}
