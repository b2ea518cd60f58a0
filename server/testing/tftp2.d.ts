// The part of the tftp2 package (0.0.1, which brings no types) that the tests use.

declare module 'tftp2' {
  export interface Tftp2Client {
    read(name: string, push: (chunk: Uint8Array) => void, done: () => void): Promise<void>
    close(): void
  }
  // biome-ignore lint/style/noDefaultExport: it is what the package does
  export default function tftp2(host: string, port: number): Tftp2Client
}
