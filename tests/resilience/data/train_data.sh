#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# train_data.sh BIN_DIR: data.mix and data.window from the configuration to a finished run: killed and resumed to the
# same bytes, other ranks, and what a resume must refuse.
set -euo pipefail
bin=$1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/gidd-data-XXXXXX")
trap 'rm -rf "$work"' EXIT
export OMP_NUM_THREADS=1
cd "$work"

die() {
    printf 'FAIL: %s\n' "$*" >&2
    tail -n 15 log >&2
    exit 1
}

cat >config.yaml <<YAML
data: {tokenizer: $here/../../fixtures/tokenizer, suffixes: h, valid_documents: 4}
model: {hidden_size: 32, blocks: 1, heads: 2, cond_size: 16, context: 64, p_uniform: 0.1}
optimizer: {lr: 3.0e-3, warmup_steps: 4}
training: {steps: 10, global_batch: 8, precision: fp32}
checkpoint: {every_steps: 3, keep_last: 2}
eval: {every_steps: 5, documents: 8}
log: {every_steps: 2, tensorboard: off}
YAML

# expect CODE RUN RANKS [overrides...]
expect() {
    local want=$1 run=$2 ranks=$3 rc=0
    shift 3
    mpirun -np "$ranks" "$bin/gidd-worker" --config config.yaml "run.dir=$run" "$@" >log 2>&1 || rc=$?
    [[ $rc == "$want" ]] || die "$run: exit $rc, not $want: $*"
}

said() {
    grep -qF -- "$1" log || die "did not say: $1"
}

for room in io kernels; do
    "$bin/gidd-shard" --config config.yaml --input "$here/../../../src/$room" --output "$room" >log 2>&1 || die "shards"
done

mix=data.mix=io:3,kernels:1
expect 0 whole 2 $mix
GIDD_FAULT=kill:rank=1,point=backward,step=7 expect 137 killed 2 $mix
expect 0 killed 2 $mix
cmp whole/metrics.jsonl killed/metrics.jsonl || die "a killed run of a mix ends elsewhere"
expect 0 alone 1 $mix
python3 - <<'PY' || die "one rank sees other data than two"
import json
a, b = ([json.loads(line) for line in open(f"{run}/metrics.jsonl")] for run in ("whole", "alone"))
assert len(a) == len(b) > 4
for x, y in zip(a, b):
    for key in ("loss", "valid_loss"):
        assert abs(x.get(key, 0) - y.get(key, 0)) < 1e-5 * abs(x.get(key, 1)), (x, y)
PY

# Other shares, another order, one source alone: other data. The same shares written differently are not.
for other in data.mix=io:2,kernels:1 data.mix=kernels:1,io:3 data.dir=io; do
    expect 78 whole 2 "$other"
    said "holds other data"
done
expect 0 whole 2 data.mix=io:0.75,kernels:0.25
expect 78 none 2 data.mix=io:3,kernels
said "not FOLDER:WEIGHT"
expect 66 none 2 data.mix=io:3,nowhere:1

for window in padded packed; do
    expect 0 $window 2 data.dir=io data.window=$window training.steps=6
    cmp -s $window/metrics.jsonl whole/metrics.jsonl && die "$window trains on the same rows"
    expect 78 $window 2 data.dir=io training.steps=6
    said data.window
done
cmp -s padded/metrics.jsonl packed/metrics.jsonl && die "padded and packed are the same"
"$bin/gidd-worker" --config config.yaml $mix --dry-run >log 2>&1 || die "no plan for a mix"
printf 'a mix resumes bit for bit; windows and shares are part of the identity\n'
