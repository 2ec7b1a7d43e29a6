#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# power_loss.sh MPIRUN POWER_RECORD POWER_REPLAY CASES: records the life of a run directory on 3 ranks, the state
# held whole and in pieces, and cuts the power CASES times in each.
set -euo pipefail
mpirun=$1 record=$2 replay=$3 cases=$4
place=${TMPDIR:-/tmp}
[[ ! -w /dev/shm || $(df --output=avail -k /dev/shm | tail -n 1) -lt 500000 ]] || place=/dev/shm
work=$(mktemp -d "$place/gidd-power-XXXXXX")
trap 'rm -rf "$work"' EXIT

for how in whole pieces; do
    mkdir "$work/$how"
    "$mpirun" -np 3 "$record" "$work/$how" runs/deep/life "$work/$how.log" "$how"
    printf '%s: ' "$how"
    "$replay" "$work/$how" runs/deep/life "$work/$how.log" --cases="$cases"
done
