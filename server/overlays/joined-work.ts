// Work that many ask for at once: done as seldom as possible, and never answered with something older than the question.

interface UnderWay<Result> {
  readonly current: Promise<Result>
  next?: Promise<Result>
}

/**
 * Every caller gets the result of a run that began after its call. While one run of a key is under way, all who come
 * share the one that follows it. So runs of the same key never overlap.
 */
export function createJoinedWork<Subject, Result>(
  keyOf: (subject: Subject) => string,
  work: (subject: Subject) => Promise<Result>,
): (subject: Subject) => Promise<Result> {
  const underWay = new Map<string, UnderWay<Result>>()

  const begin = (subject: Subject): Promise<Result> => {
    const key = keyOf(subject)
    const entry: UnderWay<Result> = { current: work(subject) }
    underWay.set(key, entry)
    const end = () => {
      if (entry.next === undefined) underWay.delete(key)
    }
    entry.current.then(end, end)
    return entry.current
  }

  return (subject) => {
    const entry = underWay.get(keyOf(subject))
    if (entry === undefined) return begin(subject)
    const follow = () => begin(subject)
    entry.next ??= entry.current.then(follow, follow)
    return entry.next
  }
}
