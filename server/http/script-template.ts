// iPXE scripts with holes: `{{name}}` is replaced by a value that iPXE will take as plain words.

import { KitError } from '#lib/errors.ts'
import { findScriptProblem } from '#machine/script-text.ts'

const HOLE = /\{\{([^}]*)\}\}/g

export class ScriptTemplate<Name extends string> {
  readonly #text: string

  /** Throws KitError `internal` for a hole that is not in `names`, so that a mistake shows at start and not at a boot. */
  constructor(text: string, { file, names }: { file: string; names: readonly Name[] }) {
    if (!text.startsWith('#!ipxe\n')) {
      throw new KitError('internal', `Cannot use the boot script ${file}: its first line is not #!ipxe`)
    }
    // The comments are for whoever edits the file; machines need not download them.
    this.#text = text.replace(/\n(?:# .*\n)+/g, '\n')
    const holes = [...this.#text.matchAll(HOLE)].map(([, name = '']) => name)
    const unknown = holes.filter((name) => !isIn(names, name))
    if (unknown.length > 0) {
      throw new KitError(
        'internal',
        `Cannot use the boot script ${file}: unknown {{${unknown.join('}}, {{')}}}`,
      )
    }
  }

  /** Throws KitError `invalid-input` for a value that iPXE would take as more than plain words. */
  render(values: Readonly<Record<Name, string>>): string {
    return this.#text.replace(HOLE, (_hole, name: Name) => {
      const problem = findScriptProblem(values[name])
      if (problem === undefined) return values[name]
      throw new KitError('invalid-input', `Cannot put ${name} into a boot script: it has ${problem}`)
    })
  }
}

/** Free text made fit for a console: what a script cannot hold is left out. */
export function toScriptText(text: string): string {
  const words = text
    .replace(/[^\x20-\x7e]+/g, ' ')
    .replaceAll('${', '$ {')
    .replace(/\\+$/, '')
    .split(' ')
  return words.filter((word) => word !== '' && findScriptProblem(word) === undefined).join(' ')
}

function isIn<Name extends string>(names: readonly Name[], name: string): name is Name {
  return (names as readonly string[]).includes(name)
}
