// The list of TPMs that need no approval by a person (setting identity/ek-list): its text to values.

export interface EkList {
  /** sha256 of endorsement keys (SubjectPublicKeyInfo, DER), hex in lower case. */
  readonly hashes: ReadonlySet<string>
  /** The lines that cannot be read. The others count all the same. */
  readonly problems: readonly EkListProblem[]
}

export interface EkListProblem {
  /** From 1. */
  readonly line: number
  readonly message: string
}

/** A hash, and behind blanks whatever helps a person: where the machine stands, its serial number. */
const ENTRY = /^([0-9a-f]{64})(?:\s.*)?$/i

/** How much of a wrong line is shown. */
const SHOWN = 40

export function parseEkList(text: string): EkList {
  const hashes = new Set<string>()
  const problems: EkListProblem[] = []
  for (const [index, whole] of text.split('\n').entries()) {
    const line = whole.trim()
    if (line === '' || line.startsWith('#')) continue
    const hash = ENTRY.exec(line)?.[1]
    if (hash === undefined) {
      const shown = JSON.stringify(line.length > SHOWN ? `${line.slice(0, SHOWN)}…` : line)
      problems.push({
        line: index + 1,
        message: `Cannot read ${shown}: it must be 64 hex digits, then blanks and a comment if you like`,
      })
    } else {
      hashes.add(hash.toLowerCase())
    }
  }
  return { hashes, problems }
}
