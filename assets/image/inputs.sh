# Everything that decides what is built: the list of files, their digest, and a copy of them that nobody edits.
# shellcheck shell=bash

# find_inputs base|image: `base` is what the Debian tree alone depends on. Tests and pages do not change what is built, nor
# does what is for Kubernetes in an image without.
find_inputs() {
  local -a roots=(assets/image boot/initrd boot/node) without=()
  if [ "$1" = base ]; then
    roots=(assets/image/{base.sh,base-hook.sh,packages.sh,packages.txt,source-date-epoch})
  elif ! has_kubernetes; then
    without=(! -path 'assets/image/kubernetes*')
  fi
  find "${roots[@]}" \( -type f -o -type l \) ! -name '*.bats' ! -name '*.md' ! -name '*.test.*' "${without[@]}" -print0 | LC_ALL=C sort -z
}

# recipe_digest base|image <folder of the project or of a copy>: sha256 over path, kind and content of each input.
recipe_digest() {
  local kernel more
  kernel=$(image_kernel)
  case $1 in
    base) more=$(kubernetes_sections) ;;
    *) more=$(kubernetes_identity) ;;
  esac
  {
    echo "$KIT_ARCH $kernel"
    [ -z "$more" ] || echo "$more"
    cd "$2" || exit 1
    find_inputs "$1" | describe_files
  } | sha256sum | cut -d' ' -f1
}

# image_digest <folder of the project or of a copy> <version or nothing> <added folder or nothing>: the recipe's digest,
# and another one where something beside the recipe decides what is built.
image_digest() {
  local recipe
  recipe=$(recipe_digest image "$1")
  if [ -z "$2$3" ]; then
    echo "$recipe"
    return
  fi
  {
    printf '%s\n%s\n' "$recipe" "$2"
    if [ -n "$3" ]; then
      cd "$3" || exit 1
      find . -mindepth 1 -print0 | LC_ALL=C sort -z | describe_files
    fi
  } | sha256sum | cut -d' ' -f1
}

# describe_files: path, kind and content of each file of the list (ended by NUL) on standard input.
describe_files() {
  local file kind
  while IFS= read -r -d '' file; do
    if [ -L "$file" ]; then
      printf '%s link %s\n' "$file" "$(readlink "$file")"
    elif [ -d "$file" ]; then
      printf '%s folder\n' "$file"
    else
      kind=plain
      [ ! -x "$file" ] || kind=executable
      printf '%s %s %s\n' "$file" "$kind" "$(sha256sum <"$file")"
    fi
  done
}

# is_version <text>: three numbers first, for order; then the characters and the length of server/images/manifest.ts.
is_version() {
  [[ $1 =~ ^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z._~-]+)?$ ]] && [ ${#1} -le 64 ]
}

# copy_inputs <from> <to>: a build works on its copy, so that a file edited meanwhile counts for the next build.
copy_inputs() {
  mkdir -p "$2"
  (cd "$1" && find_inputs image | tar -c --null --no-recursion --files-from=-) | tar -x -C "$2"
}
