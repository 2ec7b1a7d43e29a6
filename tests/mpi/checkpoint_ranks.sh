#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# checkpoint_ranks.sh MPIRUN DRIVER: a checkpoint written on any number of ranks, held whole or in pieces,
# has the same state.bin, and any other number of ranks reads it.
set -eu
mpirun=$1 driver=$2
work=$(mktemp -d "${TMPDIR:-/tmp}/gidd-ranks-XXXXXX")
trap 'rm -rf "$work"' EXIT

for ranks in 1 2 3; do
  for how in whole pieces; do
    run=$work/$ranks-$how
    mkdir "$run"
    "$mpirun" -np "$ranks" "$driver" write "$run" 40 "$how"
    cmp "$work/1-whole/checkpoints/step-000000040/state.bin" "$run/checkpoints/step-000000040/state.bin"
  done
  # The manifest does not depend on how the ranks hold the state either; it may on their number.
  cmp "$work/$ranks-whole/checkpoints/step-000000040/manifest.json" "$run/checkpoints/step-000000040/manifest.json"
done
for ranks in 1 2 4; do
  "$mpirun" -np "$ranks" "$driver" read "$work/3-pieces" 40
done
echo "state.bin is the same for 1, 2 and 3 ranks, whole and in pieces; 1, 2 and 4 ranks read it"
