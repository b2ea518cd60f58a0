// What an attacker got to read, searched for secrets in every form in which one could lie there.

export class Loot {
  #chunks: Buffer[] = []
  #answers = 0

  /** One answer, as its client sees it. */
  add(...parts: readonly (string | Uint8Array)[]): void {
    this.#answers++
    for (const part of parts) this.#chunks.push(Buffer.from(part))
  }

  get answers(): number {
    return this.#answers
  }

  get sizeBytes(): number {
    return this.#chunks.reduce((sum, { length }) => sum + length, 0)
  }

  /** The names of those secrets that are in it. */
  secretsIn(secrets: Readonly<Record<string, string>>): readonly string[] {
    const all = Buffer.concat(this.#chunks)
    this.#chunks = [all]
    return findSecrets(all, secrets)
  }
}

/** The names of those that lie there in any form. */
export function findSecrets(bytes: Buffer, secrets: Readonly<Record<string, string>>): readonly string[] {
  return Object.entries(secrets).flatMap(([name, secret]) =>
    formsOf(secret).some((form) => bytes.includes(form)) ? [name] : [],
  )
}

/** As it is, in hex, and in base64 at each of the three places in a group. */
export function formsOf(secret: string): readonly string[] {
  return [secret, Buffer.from(secret).toString('hex'), ...base64Forms(secret)]
}

function base64Forms(secret: string): readonly string[] {
  return [0, 1, 2].map((shift) => {
    const encoded = Buffer.from('\0'.repeat(shift) + secret).toString('base64')
    // The first group and the last depend on what stands beside it.
    return encoded.replace(/=+$/, '').slice(shift === 0 ? 0 : 4, -4)
  })
}
