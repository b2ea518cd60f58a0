// Secret files that a test holds in its hands.

import { createHash } from 'node:crypto'

import { KitError } from '#lib/errors.ts'
import type { Mac } from '#lib/mac.ts'
import type { ExplainedFile, ProfileProblem } from '#machine/ports.ts'
import type {
  ExplainedSecrets,
  Secrets,
  SecretsArchive,
  SecretsDesk,
  SecretsKey,
} from '#machine/secret-ports.ts'

const FILE: ExplainedFile = {
  ...{ path: '/etc/key', layer: 'roles/worker', kind: 'file', mode: '0600', uid: 0, gid: 0 },
  hides: [],
}

export class FakeSecrets implements Secrets, SecretsDesk, Pick<SecretsKey, 'recipient'> {
  readonly #contents = new Map<Mac, string>()
  problems: readonly ProfileProblem[] = []

  set(mac: Mac, content: string) {
    this.#contents.set(mac, content)
  }

  async secretsFor(mac: Mac) {
    const archive = await this.read(mac)
    return archive && { digest: archive.digest, sizeBytes: archive.sizeBytes }
  }

  async read(mac: Mac): Promise<SecretsArchive | undefined> {
    const content = this.#contents.get(mac)
    if (content === undefined) return undefined
    const bytes = Buffer.from(content)
    return { bytes, sizeBytes: bytes.length, digest: createHash('sha256').update(bytes).digest('hex') }
  }

  async explain(mac: Mac): Promise<ExplainedSecrets> {
    return { files: this.#contents.has(mac) ? [FILE] : [], problems: this.problems }
  }

  async hand(mac: Mac) {
    const archive = await this.read(mac)
    if (archive === undefined) throw new KitError('not-found', 'Cannot find secret files of this machine')
    return archive
  }

  recipient() {
    return 'age14vvdzz5ndk268nmsr5sfvsdv08na89kzsp358m60jp32h5w459hq7j4vgc'
  }
}

/** What the HTTP service asks of them. */
export function secretParts(secrets = new FakeSecrets()) {
  return { secretFiles: secrets, secretsKey: secrets, secretsDesk: secrets }
}
