// What a boot loader would start, given what is on kit-esp: systemd-boot's and GRUB's rules written down once more, apart
// from the shell that keeps them, so that one can be held against the other.

/** Paths below the root of kit-esp with their contents. */
export type Files = ReadonlyMap<string, Buffer>

export type Firmware = 'uefi' | 'bios'

export type Choice =
  | { readonly kind: 'slot'; readonly slot: 'a' | 'b'; readonly isTrial: boolean; readonly options: string }
  | { readonly kind: 'network' }
  | { readonly kind: 'nothing' }

type Entry = {
  readonly triesLeft: number | undefined
  readonly sortKey: string
  readonly version: number
  readonly slot: 'a' | 'b' | undefined
  readonly options: string
}

/** Every slot or network start in the order in which it would be chosen; a trial that failed is followed by the next. */
export function choices(files: Files, firmware: Firmware): Choice[] {
  const found = firmware === 'uefi' ? uefiChoices(files) : biosChoices(files)
  return [...found, { kind: 'nothing' }]
}

// systemd 257, src/boot/boot.c: boot_entry_add_type1 (what is no entry), boot_entry_compare (the order).
function uefiChoices(files: Files): Choice[] {
  const entries: Entry[] = []
  for (const [path, content] of files) {
    const name = /^loader\/entries\/([^/]+)\.conf$/.exec(path)?.[1]
    if (name === undefined) continue
    const entry = parseEntry(name, content.toString(), files)
    if (entry !== undefined) entries.push(entry)
  }
  return entries
    .toSorted(
      (one, other) =>
        Number(one.triesLeft === 0) - Number(other.triesLeft === 0) ||
        (one.sortKey < other.sortKey ? -1 : one.sortKey > other.sortKey ? 1 : 0) ||
        other.version - one.version ||
        (other.triesLeft ?? 0) - (one.triesLeft ?? 0),
    )
    .map(({ slot, triesLeft, options }) =>
      slot === undefined
        ? { kind: 'network' }
        : { kind: 'slot', slot, isTrial: triesLeft !== undefined, options },
    )
}

function parseEntry(name: string, text: string, files: Files): Entry | undefined {
  const value = (key: string) => new RegExp(`^${key} (.*)$`, 'm').exec(text)?.[1]
  const program = value('linux') ?? value('efi')
  if (program === undefined || !files.has(program.replace(/^\//, ''))) return undefined
  const counter = /\+(\d+)(-\d+)?$/.exec(name)?.[1]
  return {
    triesLeft: counter === undefined ? undefined : Number(counter),
    sortKey: value('sort-key') ?? '\uffff',
    version: Number(value('version') ?? 0),
    slot: /^\/kit\/([ab])\/vmlinuz$/.exec(program)?.[1] as 'a' | 'b' | undefined,
    options: value('options') ?? '',
  }
}

// boot/node/root/usr/lib/kit/boot/grub.cfg; loaders.bats runs that one in GRUB itself.
function biosChoices(files: Files): Choice[] {
  const block = files.get('kit/grub/grubenv')
  const found: Choice[] = []
  const add = (slot: string | undefined, isTrial: boolean) => {
    const options = slot === undefined ? undefined : grubOptions(files, slot)
    if (options !== undefined) found.push({ kind: 'slot', slot: slot as 'a' | 'b', isTrial, options })
  }
  const isBlock = block?.length === 1024 && block.toString('latin1').startsWith('# GRUB Environment Block\n')
  const env = parseEnvironment(isBlock ? block.toString('latin1') : '')
  if (env.get('network') === '1') found.push({ kind: 'network' })
  if (/^[1-9]$/.test(env.get('tries') ?? '')) add(env.get('try'), true)
  add(env.get('boot'), false)
  add(env.get('spare'), false)
  if (!/^[ab]$/.test(env.get('boot') ?? '') && !/^[ab]$/.test(env.get('try') ?? '')) {
    add('a', false)
    add('b', false)
  }
  if (files.has('kit/ipxe.lkrn') && files.has('kit/grub/grub.cfg')) found.push({ kind: 'network' })
  return files.has('kit/grub/grub.cfg') ? found : []
}

function parseEnvironment(text: string): Map<string, string> {
  const lines = text.split('\n').filter((line) => !line.startsWith('#'))
  return new Map(lines.map((line) => [line.split('=')[0] ?? '', line.slice(line.indexOf('=') + 1)]))
}

function grubOptions(files: Files, slot: string): string | undefined {
  const text = files.get(`kit/${slot}/grub.cfg`)?.toString()
  const line = new RegExp(`^if linux /kit/${slot}/vmlinuz (.*) ?\\$kit_trial; then$`, 'm').exec(
    text ?? '',
  )?.[1]
  if (line === undefined || !files.has(`kit/${slot}/vmlinuz`)) return undefined
  return line.trim().replaceAll("'", '')
}
