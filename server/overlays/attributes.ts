// `root.attributes`: what files on disk or in git cannot say of an overlay: modes, owners, deletions, empty directories.

/** What the line `/etc/shadow mode=0600 owner=0:42` says. */
export interface AttributeLine {
  /** Without the leading slash, as in the archive: `etc/shadow`. */
  readonly path: string
  readonly action: 'change' | 'delete' | 'directory'
  readonly mode?: number
  readonly uid?: number
  readonly gid?: number
  /** For messages; the first line is 1. */
  readonly line: number
}

export interface LineProblem {
  readonly line: number
  readonly message: string
}

export interface ParsedAttributes {
  readonly lines: readonly AttributeLine[]
  readonly problems: readonly LineProblem[]
}

/** Owners above this do not fit into a tar header's digits, and no system user of Debian has one. */
const MAX_ID = 65_535

/** Never throws: every wrong line is a problem. */
export function parseAttributes(text: string): ParsedAttributes {
  const lines: AttributeLine[] = []
  const problems: LineProblem[] = []
  const seen = new Map<string, number>()
  for (const [index, raw] of text.split('\n').entries()) {
    const line = index + 1
    const words = splitWords(raw)
    if (words?.length === 0) continue
    const parsed = words === undefined ? 'a quote is not closed' : parseLine(words, line)
    if (typeof parsed === 'string') {
      problems.push({ line, message: `Cannot use this line: ${parsed}` })
      continue
    }
    const first = seen.get(parsed.path)
    if (first === undefined) lines.push(parsed)
    else problems.push({ line, message: `Cannot use /${parsed.path} twice: line ${first} has it too` })
    seen.set(parsed.path, first ?? line)
  }
  return { lines, problems }
}

/**
 * Words are separated by blanks; in double quotes a blank is a letter, and `\"` and `\\` stand for `"` and `\`.
 * A `#` where a word would begin starts a comment. Undefined when a quote is not closed.
 */
function splitWords(raw: string): readonly string[] | undefined {
  const words: string[] = []
  let rest = raw.trim()
  while (rest !== '' && !rest.startsWith('#')) {
    const word = /^(?:"((?:[^"\\]|\\["\\])*)"|([^\s"]\S*))(?:\s+|$)/.exec(rest)
    if (!word) return undefined
    words.push(word[2] ?? (word[1] ?? '').replace(/\\(["\\])/g, '$1'))
    rest = rest.slice(word[0].length)
  }
  return words
}

/** The line, or what is wrong with it. */
function parseLine([path = '', ...words]: readonly string[], line: number): AttributeLine | string {
  const wrongPath = checkPath(path)
  if (wrongPath !== undefined) return wrongPath
  let action: AttributeLine['action'] = 'change'
  let attributes: Pick<AttributeLine, 'mode' | 'uid' | 'gid'> = {}
  for (const word of words) {
    if (word === 'delete' || word === 'directory') {
      if (action !== 'change') return `${action} and ${word} exclude each other`
      action = word
      continue
    }
    const parsed = parseAttribute(word)
    if (typeof parsed === 'string') return parsed
    attributes = { ...attributes, ...parsed }
  }
  if (action === 'delete' && words.length > 1) return 'delete stands alone'
  if (words.length === 0) return 'expected mode=, owner=, directory or delete after the path'
  return { path: path.slice(1).replace(/\/$/, ''), action, ...attributes, line }
}

function checkPath(path: string): string | undefined {
  const shown = JSON.stringify(path)
  if (!path.startsWith('/')) return `${shown} must begin with / (the root of the machine)`
  const parts = path.slice(1).replace(/\/$/, '').split('/')
  if (parts.some((part) => part === '' || part === '.' || part === '..')) {
    return `${shown} must be a plain path without //, . and ..`
  }
  return parts.some((part) => part.startsWith('.wh.'))
    ? `${shown}: names with .wh. stand for deletions`
    : undefined
}

function parseAttribute(word: string): Pick<AttributeLine, 'mode' | 'uid' | 'gid'> | string {
  const [name, value = ''] = word.split(/=(.*)/s)
  if (name === 'mode') {
    return /^[0-7]{3,5}$/.test(value) && Number.parseInt(value, 8) <= 0o7777
      ? { mode: Number.parseInt(value, 8) }
      : `mode=${value} must be octal, from 0000 to 7777`
  }
  if (name === 'owner') {
    const [uid, gid] = (/^(\d{1,5}):(\d{1,5})$/.exec(value)?.slice(1) ?? []).map(Number)
    return uid !== undefined && gid !== undefined && uid <= MAX_ID && gid <= MAX_ID
      ? { uid, gid }
      : `owner=${value} must be two numbers up to ${MAX_ID}, as in owner=0:42 (names differ from machine to machine)`
  }
  return `${JSON.stringify(word)} is none of mode=, owner=, directory, delete`
}
