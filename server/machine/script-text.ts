// What may stand in an iPXE script as plain words.

/**
 * What iPXE would not take literally (its core/exec.c, script.c and settings.c): it splits at blanks, ends a command at
 * a word `||`, `&&` or `;`, a line at a word that begins with `#`, joins lines at a final backslash, and expands `${…}`.
 */
export function findScriptProblem(value: string): string | undefined {
  if (!/^[\x20-\x7e]*$/.test(value)) return 'a character that is not printable ASCII'
  if (value.includes('${')) return '${, which iPXE would expand'
  if (value.endsWith('\\')) return 'a backslash at its end'
  const word = value.split(' ').find((each) => ['||', '&&', ';'].includes(each) || each.startsWith('#'))
  return word === undefined ? undefined : `the word ${word}, which ends a command of iPXE`
}
