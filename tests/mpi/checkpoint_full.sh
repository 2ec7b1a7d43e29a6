#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# checkpoint_full.sh MPIRUN DRIVER: a disk that has room for one checkpoint (24 MiB) and not for two. The second
# write fails on all ranks with exit code 74 and says how much was free; the first stays whole, nothing else stays;
# with room again the next write succeeds. On a tmpfs of its own, which needs user namespaces: else skipped.
set -eu
mpirun=$1 driver=$2
if [ "${3:-}" != inside ]; then
  unshare -Urm true 2>/dev/null || { echo "skipped: no user namespaces here"; exit 77; }
  exec unshare -Urm "$0" "$mpirun" "$driver" inside
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/gidd-full-XXXXXX")
trap 'umount "$work"; rmdir "$work"' EXIT
mount -t tmpfs -o size=40m none "$work"
mkdir "$work/run"

"$mpirun" -np 2 "$driver" write "$work/run" 1 whole
for how in whole pieces; do
  code=0
  log=$("$mpirun" -np 2 "$driver" write "$work/run" 2 $how 2>&1) || code=$?
  if [ "$code" -ne 74 ] || ! echo "$log" | grep -q "free"; then
    echo "$log"
    echo "full disk ($how): exit code $code, expected 74 and a message with the free bytes" >&2
    exit 1
  fi
  if [ "$(ls "$work/run/checkpoints")" != step-000000001 ]; then
    ls "$work/run/checkpoints" >&2
    echo "full disk ($how): not exactly step 1 is left" >&2
    exit 1
  fi
done
"$mpirun" -np 2 "$driver" read "$work/run" 1
mount -o remount,size=80m "$work"
"$mpirun" -np 2 "$driver" write "$work/run" 3 pieces
"$mpirun" -np 2 "$driver" read "$work/run" 3
echo "a full disk cost one checkpoint and nothing else"
