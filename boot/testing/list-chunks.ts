// `node list-chunks.ts FILE` prints the list of chunks of a root image or an initrd, as the server makes it.

import { listChunks } from '#images/content-chunks.ts'

process.stdout.write(await listChunks(process.argv[2] ?? ''))
