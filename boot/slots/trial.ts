// What a loader changes by itself when it starts a slot on trial.

import type { Firmware } from './rules.ts'
import type { State } from './state.ts'

/** One try less. */
export function countStart(state: State, firmware: Firmware): State {
  const esp = new Map(state.esp)
  for (const [path, content] of state.esp) {
    const entry = /^(loader\/entries\/kit-[ab]\+)(\d+)(?:-(\d+))?\.conf$/.exec(path)
    if (firmware === 'uefi' && entry !== null) {
      esp.delete(path)
      esp.set(`${entry[1]}${Number(entry[2]) - 1}-${Number(entry[3] ?? 0) + 1}.conf`, content)
    }
    if (firmware === 'bios' && path === 'kit/grub/grubenv') {
      const text = content
        .toString('latin1')
        .replace(/^tries=([1-9])$/m, (_, tries) => `tries=${Number(tries) - 1}`)
      esp.set(path, Buffer.from(text, 'latin1'))
    }
  }
  return { ...state, esp }
}
