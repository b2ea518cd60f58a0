// How the tests with virtual machines run: one after the other, for they share two cores and are emulated.

/** A dozen boots each, which takes too long for every run: `npm run test:machines`. */
const LONG = ['update', 'powerwash', 'identity'].map((name) => `qemu-tests/${name}.test.ts`)

// biome-ignore lint/style/noDefaultExport: ava wants it so
export default {
  extensions: ['ts'],
  files: [
    'qemu-tests/**/*.test.ts',
    ...(process.env.KATESKIT_MACHINES === 'all' ? [] : LONG.map((file) => `!${file}`)),
  ],
  concurrency: 1,
  serial: true,
  // Ava's own limit is on silence between two results; one test is a dozen boots, each of which takes minutes under emulation.
  timeout: '60m',
}
