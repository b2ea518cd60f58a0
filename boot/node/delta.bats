#!/usr/bin/env bats
# plan_delta() and the fetching of parts, against a server with ranges.

load ../testing/agent.bash

setup() {
  make_node
  WORK="$BATS_TEST_TMPDIR/work"
  mkdir -p "$WORK" "$KIT_RUN/update"
}

teardown() {
  end_node
}

# chunks NAME… : a list of chunks: `x:1000` is 1000 bytes that are called x.
chunks() {
  local pair
  for pair in "$@"; do printf '%s %s\n' "${pair#*:}" "$(printf '%s' "${pair%:*}" | sha256sum | cut -d ' ' -f 1)"; done
}

plan() {
  with_parts paths delta -- "plan_delta '$WORK/old' '$WORK/new'"
}

@test "plan_delta() makes one line of what belongs together, wherever it lies" {
  chunks a:100000 b:100000 c:100000 d:100000 >"$WORK/old"
  local cases=(
    # new chunks | plan
    'a:100000 b:100000 c:100000 d:100000|copy 0 0 400000'
    'x:50000 a:100000 b:100000|fetch 0 50000;copy 0 50000 200000'
    'a:100000 x:7 y:8 c:100000 d:100000|copy 0 0 100000;fetch 100000 15;copy 200000 100015 200000'
    'd:100000 a:100000|copy 300000 0 100000;copy 0 100000 100000'
    'x:1|fetch 0 1'
    'a:100000 a:100000|copy 0 0 100000;copy 0 100000 100000'
  )
  for each in "${cases[@]}"; do
    chunks ${each%|*} >"$WORK/new"
    [ "$(plan | paste -sd ';')" = "${each#*|}" ] || { echo "$each" && plan && false; }
  done
}

@test "plan_delta() fetches a gap that is shorter than a request along, and copies a longer one" {
  chunks a:100000 s:16383 l:16384 >"$WORK/old"
  chunks x:10 s:16383 y:10 l:16384 z:10 >"$WORK/new"
  [ "$(plan | paste -sd ';')" = 'fetch 0 16403;copy 116383 16403 16384;fetch 32787 10' ]
}

@test "plan_delta() follows the old image through chunks that are in it twice" {
  chunks a:50000 n:20000 b:50000 n:20000 c:50000 >"$WORK/old"
  chunks b:50000 n:20000 c:50000 >"$WORK/new"
  [ "$(plan)" = 'copy 70000 0 120000' ]
}

@test "plan_delta() counts past two gigabytes" {
  chunks a:2000000000 b:147000000 c:400000 >"$WORK/old"
  chunks a:2000000000 x:147000000 c:400000 y:3 >"$WORK/new"
  [ "$(plan | paste -sd ';')" = 'copy 0 0 2000000000;fetch 2000000000 147000000;copy 2147000000 2147000000 400000;fetch 2147400000 3' ]
}

@test "is_chunk_list() refuses what is no list of so many bytes" {
  chunks a:100 b:200 >"$WORK/good"
  is() { with_parts paths delta -- "is_chunk_list '$1' '$2'"; }
  is "$WORK/good" 300
  ! is "$WORK/good" 299
  ! is "$WORK/none" 300
  for line in '0 x' '-5 abc' "100 $(printf 'A%.0s' {1..64})" "0100 $(printf 'a%.0s' {1..64})" "100 $(printf 'a%.0s' {1..64}) x" '<html>'; do
    { cat "$WORK/good" && echo "$line"; } >"$WORK/bad"
    ! is "$WORK/bad" 400
  done
}

fetch() {
  run with_parts paths fetch -- "fetch_range $KIT_URL/images/file $1 $2 '$WORK/out' $3"
}

@test "fetch_range() puts a part where it belongs, and goes on when the line breaks" {
  head -c 3000000 /dev/urandom >"$FOLDER/images/file"
  head -c 1500000 /dev/zero >"$WORK/out"
  nap
  PATH="$BATS_TEST_TMPDIR/nap:$PATH"
  echo 400000 3 >"$FOLDER/cut"
  fetch 1000000 1200000 100000
  [ "$status" -eq 0 ]
  cmp <(tail -c +1000001 "$FOLDER/images/file" | head -c 1200000) <(tail -c +100001 "$WORK/out" | head -c 1200000)
  cmp <(head -c 100000 /dev/zero) <(head -c 100000 "$WORK/out")
  cmp <(head -c 200000 /dev/zero) <(tail -c +1300001 "$WORK/out")
  # Not a byte twice.
  [ "$(awk '{ sum += $1 } END { print sum }' "$KIT_RUN/update/fetched")" = 1200000 ]
}

@test "fetch_range() says what is wrong, and writes nothing beyond its part" {
  head -c 300000 /dev/urandom >"$FOLDER/images/file"
  nap
  PATH="$BATS_TEST_TMPDIR/nap:$PATH"
  fetch 0 300001 0
  [ "$status" -eq 1 ]
  [[ "$output" = *"Cannot download"*"(1 bytes were missing)"* || "$output" = *416* ]]
  touch "$FOLDER/whole"
  rm "$WORK/out"
  fetch 1000 2000 0
  [ "$status" -eq 2 ]
  [ "$(stat -c %s "$WORK/out")" -le 2000 ]
  rm "$FOLDER/whole" "$FOLDER/images/file"
  fetch 0 10 0
  [ "$status" -eq 1 ]
  [ "$output" = "Cannot download $KIT_URL/images/file: the server answers 404" ]
  stop_server
  SERVER_PID=''
  fetch 0 10 0
  [ "$status" -eq 1 ]
  [[ "$output" = "Cannot download $KIT_URL/images/file: curl: (7)"* ]]
}

@test "fetch_range() keeps to the rate it is given" {
  truncate -s 30M "$FOLDER/images/file"
  started="$(date +%s%N)"
  run with_parts paths fetch -- "FETCH_RATE=15000; fetch_range $KIT_URL/images/file 0 31457280 '$WORK/out' 0"
  [ "$status" -eq 0 ]
  # 2.1 s at that rate; the first ten megabytes pass before curl looks at the clock.
  [ $((($(date +%s%N) - started) / 1000000)) -ge 1000 ]
}
