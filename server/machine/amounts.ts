// Amounts of bytes as people write them: powers of 1000, as makers of disks count.

const UNITS = { '': 1, K: 1e3, M: 1e6, G: 1e9, T: 1e12 } as const

/** `512`, `100G`, `1.5T` as bytes; undefined for anything else. */
export function findBytes(text: string): number | undefined {
  const match = /^(\d{1,9}(?:\.\d{1,3})?)([KMGT]?)$/.exec(text)
  if (match === null) return undefined
  return Math.round(Number(match[1]) * UNITS[match[2] as keyof typeof UNITS])
}

/** `500 GB`, `1.5 TB`, `7.9 GB`: at most one digit behind the point. */
export function describeBytes(bytes: number): string {
  for (const unit of ['T', 'G', 'M', 'K'] as const) {
    // 999.96 GB would become "1000 GB".
    if (bytes >= UNITS[unit] * 0.99995) return `${Math.round((bytes / UNITS[unit]) * 10) / 10} ${unit}B`
  }
  return `${bytes} B`
}
