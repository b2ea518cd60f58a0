// How the tests of whole clusters run: one after the other, for each has several machines.

// biome-ignore lint/style/noDefaultExport: ava wants it so
export default {
  extensions: ['ts'],
  files: ['cluster-tests/**/*.test.ts'],
  concurrency: 1,
  serial: true,
  // Ava's own limit is on silence between two results; one test is the life of a cluster.
  timeout: '30m',
}
