// How the tests with virtual machines run: one after the other, for they share two cores and are emulated.

// biome-ignore lint/style/noDefaultExport: ava wants it so
export default {
  extensions: ['ts'],
  files: ['qemu-tests/**/*.test.ts'],
  concurrency: 1,
  serial: true,
  // Ava's own limit is on silence between two results; one test is a dozen boots, each of which takes minutes under emulation.
  timeout: '60m',
}
