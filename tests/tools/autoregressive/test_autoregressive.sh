#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The autoregressive baseline through all programs: shard, train on 1 and 2 ranks, killed and resumed, evaluate,
# sample, refuse what does not belong to it.
# usage: test_autoregressive.sh BIN_DIR
set -euo pipefail
bin=$1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/support/scratch.sh
. "$here/../../support/scratch.sh"

cat >"$work/config.yaml" <<YAML
run: {dir: $work/run, seed: 7}
data: {dir: $work/shards, tokenizer: $here/../../fixtures/tokenizer, suffixes: h, valid_documents: 8}
model: {type: autoregressive, hidden_size: 32, blocks: 2, heads: 2, context: 64}
optimizer: {lr: 3.0e-3, warmup_steps: 4}
training: {steps: 24, global_batch: 12, micro_batch: 3, precision: fp32}
checkpoint: {every_steps: 5, keep_last: 2}
eval: {every_steps: 8, documents: 8}
comm: {bucket_mib: 0.05}
log: {every_steps: 3, tensorboard: off}
YAML

# train RUN RANKS [overrides...]: the exit code in $rc
train() {
    local run=$1 ranks=$2
    shift 2
    rc=0
    mpirun -np "$ranks" "$bin/gidd-worker" --config "$work/config.yaml" "run.dir=$work/$run" "$@" \
        >>"$work/$run.log" 2>&1 || rc=$?
}

"$bin/gidd-shard" --config "$work/config.yaml" --input "$here/../../../src" --output "$work/shards" \
    >"$work/shard.log" 2>&1 || die "gidd-shard: exit $?"
train whole 2
[[ $rc -eq 0 ]] || die "exit $rc"
train one 1 training.micro_batch=4
[[ $rc -eq 0 ]] || die "one rank: exit $rc"
python3 - "$work/whole/metrics.jsonl" "$work/one/metrics.jsonl" <<'PY' || die "losses"
import json, math, sys
two, one = ([json.loads(line) for line in open(path)] for path in sys.argv[1:3])
train = [line for line in two if "loss" in line]
valid = [line for line in two if "valid_loss" in line]
assert set(train[0]) == {"step", "loss", "nll", "ppl", "lr", "grad_norm", "skipped", "tokens"}, train[0]
assert set(valid[0]) == {"step", "valid_loss", "valid_nll", "valid_ppl", "valid_tokens"}, valid[0]
assert train[-1]["loss"] < 0.9 * train[0]["loss"], "the loss did not fall"
# the batch's tokens are not spread evenly over ranks and micro-batches: the mean is over all of them
worst = max(abs(a[key] - b[key]) / abs(a[key]) for a, b in zip(two, one) for key in a if key in ("loss", "valid_nll", "grad_norm"))
assert worst < 1e-5, worst
assert abs(train[0]["ppl"] - math.exp(train[0]["nll"])) < 1e-5 * train[0]["ppl"]
print("np=1 against np=2: largest relative difference", worst)
PY

# The loss is the mean over predicted tokens: rows twice as long, of which only padding is new, give the same
# gradients.
mkdir "$work/short"
for number in $(seq 40); do
    printf 'text %d of few words\n' "$((number * 37 % 101))" >"$work/short/$number.h"
done
"$bin/gidd-shard" --config "$work/config.yaml" --input "$work/short" --output "$work/short-shards" >>"$work/shard.log" 2>&1 ||
    die "gidd-shard: exit $?"
for context in 64 128; do
    train "context$context" 1 data.dir="$work/short-shards" model.context=$context training.steps=6 log.every_steps=1
    [[ $rc -eq 0 ]] || die "context $context: exit $rc"
done
python3 - "$work/context64/metrics.jsonl" "$work/context128/metrics.jsonl" <<'PY' || die "padding changes the gradients"
import json, sys
short, long = ([json.loads(line) for line in open(path) if '"loss"' in line] for path in sys.argv[1:3])
assert len(short) == len(long) == 6
worst = max(abs(a[key] - b[key]) / abs(a[key]) for a, b in zip(short, long) for key in ("loss", "grad_norm", "tokens"))
assert worst < 1e-5, worst
PY

# killed in the middle, and started again: the bytes of the uninterrupted run
for fault in rank=1,point=forward,step=7 rank=0,point=backward,step=16; do
    GIDD_FAULT="kill:$fault" train shot 2
    [[ $rc -eq 137 || $rc -eq 0 ]] || die "$fault: exit $rc"
done
train shot 2
[[ $rc -eq 0 ]] || die "resumed: exit $rc"
cmp "$work/whole/metrics.jsonl" "$work/shot/metrics.jsonl" >&2 || die "metrics of the resumed run differ"
cmp "$work/whole/checkpoints/step-000000024/state.bin" "$work/shot/checkpoints/step-000000024/state.bin" >&2 ||
    die "state of the resumed run differs"

# the CUDA kernels, on the host, train as the CPU's do
for kind in cpu emu; do
    train "$kind" 1 training.steps=5 log.every_steps=1 eval.every_steps=5 device.kind=$kind
    [[ $rc -eq 0 || ($kind = emu && $rc -eq 69) ]] || die "device $kind: exit $rc"
done
[[ $rc -ne 0 ]] || python3 - "$work/cpu/metrics.jsonl" "$work/emu/metrics.jsonl" <<'PY' || die "emu differs from cpu"
import json, sys
cpu, emu = ([json.loads(line) for line in open(path)] for path in sys.argv[1:3])
worst = max(abs(a[key] - b[key]) / abs(a[key]) for a, b in zip(cpu, emu) for key in a if key in ("loss", "valid_nll", "grad_norm"))
assert len(cpu) == len(emu) == 6 and worst < 1e-5, worst
print("emu against cpu, 5 steps:", worst)
PY

"$bin/gidd-eval" --checkpoint "$work/whole" --json >"$work/eval.json" 2>"$work/eval.log" || die "gidd-eval: exit $?"
mpirun -np 2 "$bin/gidd-eval" --checkpoint "$work/whole" --json --batch 3 >"$work/eval2.json" 2>>"$work/eval.log" ||
    die "gidd-eval on 2 ranks: exit $?"
python3 - "$work/eval.json" "$work/eval2.json" "$work/whole/metrics.jsonl" <<'PY' || die "gidd-eval"
import json, math, sys
one, two = (json.load(open(path)) for path in sys.argv[1:3])
last = [json.loads(line) for line in open(sys.argv[3]) if "valid_nll" in line][-1]
assert "elbo" not in one and abs(one["nll"] - two["nll"]) < 1e-6 and abs(one["ppl"] - math.exp(one["nll"])) < 1e-5 * one["ppl"]
assert last["step"] == 24 and abs(one["nll"] - last["valid_nll"]) < 1e-6, (one, last)
PY
"$bin/gidd-eval" --checkpoint "$work/whole" >"$work/eval.txt" 2>>"$work/eval.log" || die "gidd-eval, text: exit $?"
grep -q '^nll' "$work/eval.txt" || die "gidd-eval does not print the nll"
grep -qi 'elbo' "$work/eval.txt" && die "gidd-eval calls an exact likelihood an ELBO"

"$bin/gidd-sample" --checkpoint "$work/whole" --num 4 --seed 5 >"$work/sample.txt" 2>"$work/sample.log" ||
    die "gidd-sample: exit $?"
mpirun -np 2 "$bin/gidd-sample" --checkpoint "$work/whole" --num 4 --seed 5 --batch 1 >"$work/sample2.txt" \
    2>>"$work/sample.log" || die "gidd-sample on 2 ranks: exit $?"
cmp "$work/sample.txt" "$work/sample2.txt" >&2 || die "samples depend on the number of ranks"
"$bin/gidd-sample" --checkpoint "$work/whole" --num 4 --seed 6 >"$work/sample3.txt" 2>>"$work/sample.log" || die "exit $?"
cmp -s "$work/sample.txt" "$work/sample3.txt" && die "samples do not depend on the seed"
rc=0
"$bin/gidd-sample" --checkpoint "$work/whole" --num 1 --self-correct >/dev/null 2>"$work/correct.log" || rc=$?
[[ $rc -eq 64 ]] || die "self-correction of an autoregressive model: exit $rc, not 64"

rc=0
"$bin/gidd-checkpoint" export "$work/whole" "$work/exported" >"$work/export.log" 2>&1 || rc=$?
[[ $rc -eq 69 && ! -e "$work/exported" ]] || die "export of an autoregressive model: exit $rc, not 69"
"$bin/gidd-plot" "$work/whole" --output "$work/plot.svg" >"$work/plot.log" 2>&1 || die "gidd-plot: exit $?"
grep -q 'negative log likelihood' "$work/plot.svg" || die "gidd-plot does not say what it shows"
"$bin/gidd-worker" --dry-run --config "$work/config.yaml" >"$work/dry.log" 2>&1 || die "dry run: exit $?"

for key in model.p_uniform=0.1 training.recompute=mlp model.pad=eos diffusion.process=mdlm loss.skip_clean_rows=on; do
    train refused 1 "$key"
    [[ $rc -eq 78 ]] || die "$key: exit $rc, not 78"
done
train whole 2 model.type=diffusion
[[ $rc -eq 78 ]] || die "another type of model on the same run: exit $rc, not 78"
printf 'ok\n'
