// `node list-chunks.ts FILE` prints the root.chunks of an image, as the server makes it.

import { listChunks } from '#images/content-chunks.ts'

process.stdout.write(await listChunks(process.argv[2] ?? ''))
