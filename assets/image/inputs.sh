# Everything that decides what is built: the list of files, their digest, and a copy of them that nobody edits.
# shellcheck shell=bash

# find_inputs base|image: `base` is what the Debian tree alone depends on. Tests and pages do not change what is built.
find_inputs() {
  local -a roots=(assets/image boot/initrd boot/node)
  if [ "$1" = base ]; then
    roots=(assets/image/{base.sh,base-hook.sh,packages.sh,packages.txt,source-date-epoch})
  fi
  find "${roots[@]}" \( -type f -o -type l \) ! -name '*.bats' ! -name '*.md' ! -name '*.test.*' -print0 | LC_ALL=C sort -z
}

# recipe_digest base|image <folder of the project or of a copy>: sha256 over path, kind and content of each input.
recipe_digest() {
  local kernel file kind
  kernel=$(image_kernel)
  {
    echo "$KIT_ARCH $kernel"
    cd "$2" || exit 1
    find_inputs "$1" | while IFS= read -r -d '' file; do
      if [ -L "$file" ]; then
        printf '%s link %s\n' "$file" "$(readlink "$file")"
      else
        kind=plain
        [ ! -x "$file" ] || kind=executable
        printf '%s %s %s\n' "$file" "$kind" "$(sha256sum <"$file")"
      fi
    done
  } | sha256sum | cut -d' ' -f1
}

# copy_inputs <from> <to>: a build works on its copy, so that a file edited meanwhile counts for the next build.
copy_inputs() {
  mkdir -p "$2"
  (cd "$1" && find_inputs image | tar -c --null --no-recursion --files-from=-) | tar -x -C "$2"
}
