// How an API token is written: `kit_<id>_<secret>`. The id may be shown to anybody who may see tokens, the secret never.

const SHAPE = /^kit_(?<id>[0-9a-f]{12})_(?<secret>[A-Za-z0-9_-]{43})$/

export interface TokenText {
  readonly id: string
  readonly secret: string
}

/** Undefined for what can be no token. */
export function findTokenText(text: string): TokenText | undefined {
  const { id, secret } = SHAPE.exec(text)?.groups ?? {}
  return id === undefined || secret === undefined ? undefined : { id, secret }
}

export function formatToken({ id, secret }: TokenText): string {
  return `kit_${id}_${secret}`
}
