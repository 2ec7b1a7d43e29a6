# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# What end-to-end training tests share; to be sourced with $scenario and $bin (folder of the programs) set. Makes a
# folder $work with a tiny configuration, and functions that start runs there and compare them ($exact counts the
# runs that agreed).
exact=0
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/support/scratch.sh
. "$here/../support/scratch.sh"

cat >"$work/config.yaml" <<YAML
run: {dir: $work/run, seed: 7}
data: {dir: $work/shards, tokenizer: $here/../fixtures/tokenizer, suffixes: h, valid_documents: 8}
model: {hidden_size: 32, blocks: 2, heads: 2, cond_size: 16, context: 64, p_uniform: 0.1}
optimizer: {lr: 3.0e-3, warmup_steps: 4}
training: {steps: 24, global_batch: 12, micro_batch: 3, precision: fp32}
checkpoint: {every_steps: 5, keep_last: 2}
eval: {every_steps: 8, documents: 8}
comm: {bucket_mib: 0.05}
log: {every_steps: 3, tensorboard: off}
YAML

shard() {
    # shellcheck disable=SC2154
    "$bin/gidd-shard" --config "$work/config.yaml" --input "$here/../../src" --output "$work/shards" \
        >"$work/shard.log" 2>&1 || die "gidd-shard: exit $?"
}

# train RUN RANKS [overrides...]: one start; the exit code in $rc.
train() {
    local run=$1 ranks=$2
    shift 2
    rc=0
    mpirun -np "$ranks" "$bin/gidd-worker" --config "$work/config.yaml" "run.dir=$work/$run" "$@" \
        >>"$work/$run.log" 2>&1 || rc=$?
}

# start RUN RANKS [overrides...]: one start in the background, $pid is mpirun's; returns when it trains, or is over with
# nothing left to do. A kill before that may leave Open MPI's own start-up hanging.
start() {
    local run=$1 ranks=$2 known
    shift 2
    known=$(grep -c '"event":"\(start\|resume\)"' "$work/$run/journal.jsonl" 2>/dev/null || true)
    mpirun -np "$ranks" "$bin/gidd-worker" --config "$work/config.yaml" "run.dir=$work/$run" "$@" >>"$work/$run.log" 2>&1 &
    pid=$!
    for _ in $(seq 1000); do
        [[ $(grep -c '"event":"\(start\|resume\)"' "$work/$run/journal.jsonl" 2>/dev/null || true) -gt ${known:-0} ]] && return 0
        if [[ ! -d /proc/$pid ]]; then
            wait "$pid" && return 0
            break
        fi
        sleep 0.02
    done
    die "$run does not train"
}

# Exit code of the last start, in $rc.
finish() {
    rc=0
    wait "$pid" || rc=$?
}

ranks_of() {
    pgrep -P "$pid" -x gidd-worker || true
}

# until_finished RUN RANKS [...]: starts again as a job script does, at most six times.
until_finished() {
    local starts
    for starts in 1 2 3 4 5 6; do
        train "$@"
        [[ $rc -ne 0 ]] || return 0
    done
    die "run $1 was not finished after $starts starts (last exit $rc)"
}

same_run() {
    cmp "$work/$1/metrics.jsonl" "$work/$2/metrics.jsonl" >&2 || die "metrics.jsonl of $1 and $2 differ"
    local last
    last=$(cd "$work/$1/checkpoints" && printf '%s\n' step-????????? | tail -n 1)
    cmp "$work/$1/checkpoints/$last/state.bin" "$work/$2/checkpoints/$last/state.bin" >&2 ||
        die "state.bin of $1 and $2 differs"
    exact=$((exact + 1))
}

# Largest relative difference of the training losses of two runs.
loss_difference() {
    python3 - "$work/$1/metrics.jsonl" "$work/$2/metrics.jsonl" <<'PY'
import json, sys
a, b = ([json.loads(line) for line in open(path)] for path in sys.argv[1:3])
assert len(a) == len(b) > 5 and [x["step"] for x in a] == [x["step"] for x in b]
worst = 0.0
for x, y in zip(a, b):
    for key in ("loss", "elbo", "valid_loss", "valid_elbo"):
        if key in x:
            worst = max(worst, abs(x[key] - y[key]) / abs(x[key]))
print(worst)
sys.exit(worst > 1e-5)
PY
}
