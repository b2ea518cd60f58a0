# JSON text from shell values: shared by the initrd and the agent.
# shellcheck shell=dash

# json_string TEXT: TEXT as a JSON string on standard output, in ASCII.
# Bytes that are no UTF-8 (RFC 3629 §3) become U+FFFD: a log tail may be cut inside a character, or hold anything at all.
json_string() {
  case "$1" in
    *[!A-Za-z0-9\ ._:/,+=@%\(\)-]*) printf '%s' "$1" | json_escape ;;
    # Most texts need no escaping; they are spared two processes.
    *) printf '"%s"' "$1" ;;
  esac
}

# json_escape: standard input as one JSON string.
json_escape() {
  od -An -v -t u1 | awk '
    function unit(n) { printf "\\u%04x", n }
    function put(n) {
      if (n == 34 || n == 92) printf "\\%c", n
      else if (n >= 32 && n < 127) printf "%c", n
      else if (n == 10) printf "\\n"
      else if (n > 65535) { unit(55296 + int((n - 65536) / 1024)); unit(56320 + (n - 65536) % 1024) }
      else unit(n)
    }
    # An unfinished sequence counts as one wrong character.
    function drop() { if (left > 0) unit(65533); left = 0 }
    function start(n, bytes, smallest) { drop(); value = n; left = bytes; least = smallest }
    function continued(n) {
      if (left == 0) { unit(65533); return }
      value = value * 64 + n
      if (--left > 0) return
      if (value < least || (value >= 55296 && value < 57344) || value > 1114111) unit(65533)
      else put(value)
    }
    function byte(n) {
      if (n < 128) { drop(); put(n) }
      else if (n < 192) continued(n - 128)
      else if (n < 224) start(n - 192, 1, 128)
      else if (n < 240) start(n - 224, 2, 2048)
      else if (n < 248) start(n - 240, 3, 65536)
      else { drop(); unit(65533) }
    }
    BEGIN { printf "\"" }
    { for (i = 1; i <= NF; i++) byte($i + 0) }
    END { drop(); printf "\"" }'
}
