#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# power_loss.sh MPIRUN POWER_RECORD POWER_REPLAY CASES BIN LIBIOFAULT: records the life of a run directory on 3 ranks, the
# state held whole and in pieces, and one of gidd-worker; cuts the power CASES times in each.
set -euo pipefail
mpirun=$1 record=$2 replay=$3 cases=$4 bin=$5 shim=$6
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

mkdir "$work/worker" "$work/texts"
for n in $(seq 20); do
    printf 'document %s, of no importance at all' "$n" >"$work/texts/$n.txt"
done
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cat >"$work/config.yaml" <<YAML
run: {dir: $work/worker/runs/life, seed: 7}
data: {dir: $work/shards, tokenizer: $here/../../fixtures/tokenizer, suffixes: txt, valid_documents: 4}
model: {hidden_size: 16, blocks: 1, heads: 2, cond_size: 8, context: 32}
optimizer: {warmup_steps: 2}
training: {steps: 12, global_batch: 12, precision: fp32}
checkpoint: {every_steps: 3, keep_last: 1}
log: {every_steps: 1, tensorboard: off}
YAML
"$bin/gidd-shard" --config "$work/config.yaml" --input "$work/texts" --output "$work/shards" >"$work/log" 2>&1
for steps in 6 12; do # made, ended, resumed
    LD_PRELOAD=$shim IOFAULT_RECORD=$work/worker,$work/worker.log "$mpirun" -np 2 "$bin/gidd-worker" \
        --config "$work/config.yaml" "training.steps=$steps" --allow-change training.steps >"$work/log" 2>&1 ||
        { cat "$work/log"; exit 1; }
done
printf 'gidd-worker: '
"$replay" "$work/worker" runs/life "$work/worker.log" --cases="$cases" --worker
