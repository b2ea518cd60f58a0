// A stand-in for the registry behind the HTTP service: whatever is asked of it has an answer.

import type { ContainerRegistry } from '#machine/registry-ports.ts'

export class FakeRegistry implements ContainerRegistry {
  list() {
    return []
  }

  repositories() {
    return []
  }

  repository() {
    return undefined
  }

  startImport() {
    return 'import-1'
  }

  importProgress() {
    return { state: 'running', percent: 7, text: 'reading it' } as const
  }

  async importDone() {
    return []
  }

  async remove() {}

  async verify() {
    return []
  }
}
