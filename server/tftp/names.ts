// The names firmware asks for, brought into the one form that routes know.

/**
 * `/snponly.efi`, `\snponly.efi` and `./snponly.efi` are `snponly.efi`: some ROMs put a root before the name, and
 * Windows-born ones use backslashes. A trailing 0xff is cut off: firmware that takes option 67 for a C string reads
 * on into the end option behind it (seen in the field with Dell's and Lenovo's UEFI; untested here).
 * The result is only ever looked up, never joined to a path, so `..` needs no care: no route has such a name.
 */
export function normaliseName(name: string): string {
  return name
    .replaceAll('\\', '/')
    .replace(/\xff+$/, '')
    .replace(/^(?:\.?\/)+/, '')
}
