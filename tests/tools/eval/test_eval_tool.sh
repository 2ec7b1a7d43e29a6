#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# gidd-eval from outside: the same bytes from any number of ranks and any batch, the run's own validation number as
# the estimate in one draw, the parts of the ELBO, samples in place of documents, wrong input.
# usage: test_eval_tool.sh BIN_DIR
set -euo pipefail
bin=$1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/support/scratch.sh
. "$here/../../support/scratch.sh"

cat >"$work/config.yaml" <<YAML
data: {dir: $work/shards, tokenizer: $here/../../fixtures/tokenizer, suffixes: "h,c", valid_documents: 21}
model: {hidden_size: 32, blocks: 2, heads: 2, cond_size: 16, context: 48, p_uniform: 0.2}
optimizer: {lr: 1.0e-2, warmup_steps: 2}
training: {steps: 12, global_batch: 8, precision: fp32}
eval: {every_steps: 12, documents: 21, seed: 5}
log: {tensorboard: off}
YAML

"$bin/gidd-shard" --config "$work/config.yaml" --input "$here/../../../src/base" --input "$here/../../../src/io" \
    --output "$work/shards" >"$work/shard.log" 2>&1 || die "gidd-shard: exit $?"
"$bin/gidd-worker" --config "$work/config.yaml" run.dir="$work/hybrid" >"$work/hybrid.log" 2>&1 || die "gidd-worker: exit $?"
"$bin/gidd-worker" --config "$work/config.yaml" run.dir="$work/masks" diffusion.process=mdlm model.p_uniform=0 \
    >"$work/masks.log" 2>&1 || die "gidd-worker: exit $?"

# evaluate MODEL RANKS WORDS...
evaluate() {
    local from=$1 ranks=$2
    shift 2
    mpirun -q -np "$ranks" "$bin/gidd-eval" --checkpoint "$work/$from" "$@" 2>"$work/eval.log" || die "gidd-eval $*: exit $?"
}

evaluate hybrid 1 --json --draws 4 >"$work/one.json"
for ranks in 1 2 3; do
    for batch in 1 3; do
        evaluate hybrid "$ranks" --json --draws 4 --batch "$batch" >"$work/other.json"
        cmp "$work/one.json" "$work/other.json" >&2 || die "$ranks ranks, batch $batch: other numbers"
    done
done
evaluate masks 2 --json --draws 8 >"$work/masks.json"
"$bin/gidd-sample" --checkpoint "$work/hybrid" --num 6 --steps 8 --json >"$work/samples.json" 2>"$work/sample.log" ||
    die "gidd-sample: exit $?"
evaluate hybrid 2 --json --draws 8 --samples "$work/samples.json" >"$work/samples.eval"
evaluate masks 1 --draws 2 --samples "$work/samples.json" --documents 5 >"$work/page.txt"
grep -q 'scored  *5 samples, 240 real tokens' "$work/page.txt" || die "the page does not say what was scored"
[[ $(grep -cE '^0\.[0-9] \.\. [01]\.[0-9] ' "$work/page.txt") -ge 3 ]] || die "no table by noise level"

python3 - "$work" <<'PY' || die "wrong numbers"
import json, math, sys
work = sys.argv[1]
one, masks, samples = (json.load(open(f"{work}/{name}")) for name in ("one.json", "masks.json", "samples.eval"))
own = [json.loads(line) for line in open(f"{work}/hybrid/metrics.jsonl") if "valid_elbo" in line][-1]
assert abs(one["one_draw"]["elbo"] / own["valid_elbo"] - 1) < 1e-6, (one["one_draw"], own)
assert one["documents"] == 21 and one["draws"] == 4 and samples["samples"] == 6
assert 0 < one["unigram_entropy"] < math.log(275)
for report in (one, masks, samples):
    parts = sum(report["by_class"][name]["elbo"] for name in ("masked", "replaced", "clean"))
    assert abs(sum(report["by_class"][name]["share"] for name in ("masked", "replaced", "clean")) - 1) < 1e-9
    assert abs(parts / report["elbo"] - 1) < 1e-9
    assert abs(math.exp(report["elbo"]) / report["ppl"] - 1) < 1e-9
    assert report["standard_error"] > 0 and report["noise_error"] > 0 and report["nonfinite"] == 0
    assert report["noise_error"] < report["one_draw"]["noise_error"]
    for item in report["by_time"]:
        assert abs(sum(item["by_class"][name]["elbo"] for name in item["by_class"]) - item["elbo"]) < 1e-9 * abs(item["elbo"])
assert masks["by_class"]["replaced"]["share"] == 0 and masks["by_class"]["clean"]["elbo"] == 0
assert one["by_class"]["replaced"]["share"] > 0.05
PY

# refused CODE WORD WORDS...
refused() {
    local code=$1 word=$2 rc=0
    shift 2
    "$bin/gidd-eval" --checkpoint "$work/hybrid" "$@" >"$work/refused.log" 2>&1 || rc=$?
    [[ $rc -eq $code ]] || die "gidd-eval $*: exit $rc, not $code"
    grep -q -- "$word" "$work/refused.log" || die "gidd-eval $*: does not say '$word'"
}

printf '{"ids":[1,2,3]}\n' >"$work/short.json"
refused 65 "short.json:1:" --samples "$work/short.json"
refused 66 "nothing.json" --samples "$work/nothing.json"
refused 64 "draws\|0" --draws 0
refused 66 "nowhere" data.dir="$work/nowhere"
echo "eval_tool: all well"
