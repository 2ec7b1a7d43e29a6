#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# checkpoint_kill.sh MPIRUN DRIVER: kill -9 of each of two ranks at each point of a write and of a commit. What
# has its final name afterwards is whole: the old step before the rename, the new one after it; the next
# start removes the rest.
set -eu
mpirun=$1 driver=$2
work=$(mktemp -d "${TMPDIR:-/tmp}/gidd-kill-XXXXXX")
trap 'rm -rf "$work"' EXIT
cases=0

# kill_at RANK POINT HOLDING EXPECTED: EXPECTED is the step found by the next start.
kill_at() {
  run=$work/$1-$2-$3
  cp -r "$work/base" "$run"
  code=0
  GIDD_FAULT="kill:rank=$1,point=$2" "$mpirun" -np 2 "$driver" write "$run" 30 "$3" >"$work/log" 2>&1 || code=$?
  if [ "$code" -ne 137 ]; then
    cat "$work/log"
    echo "rank $1 at $2: exit code $code, expected 137: the fault did not strike" >&2
    exit 1
  fi
  if [ "$4" -eq 20 ] && [ -e "$run/checkpoints/step-000000030" ]; then
    echo "rank $1 at $2: step 30 has its final name" >&2
    exit 1
  fi
  "$mpirun" -np 2 "$driver" read "$run" "$4"
  for path in "$run"/checkpoints/*.tmp-* "$run"/checkpoints/*.damaged-*; do
    if [ -e "$path" ]; then
      echo "rank $1 at $2: $path is left" >&2
      exit 1
    fi
  done
  rm -rf "$run"
  cases=$((cases + 1))
}

mkdir "$work/base"
"$mpirun" -np 2 "$driver" write "$work/base" 10 whole
"$mpirun" -np 2 "$driver" write "$work/base" 20 whole
for rank in 0 1; do
  for point in ckpt_create ckpt_write ckpt_sync ckpt_readback; do
    kill_at $rank $point whole 20
  done
done
kill_at 0 ckpt_seal pieces 20 # rank 0 holds the first byte of every shared block of this state
for point in ckpt_manifest ckpt_rename; do
  kill_at 0 $point whole 20
done
for point in ckpt_fsync_dir ckpt_prune; do
  kill_at 0 $point whole 30
done
echo "$cases kills, every one recovered"
