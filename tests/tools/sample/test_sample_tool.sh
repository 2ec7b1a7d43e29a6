#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# gidd-sample from outside: the same samples from any number of ranks and any batch, infilling, self-correction of
# new samples and of a file, what is shown, wrong input.
# usage: test_sample_tool.sh BIN_DIR
set -euo pipefail
bin=$1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/support/scratch.sh
. "$here/../../support/scratch.sh"

# model NAME WORDS...: a checkpoint of a model that has been trained for a few steps.
model() {
    local name=$1
    shift
    cat >"$work/config.yaml" <<YAML
data: {dir: $work/shards, tokenizer: $here/../../fixtures/tokenizer, suffixes: h, valid_documents: 8}
model: {hidden_size: 32, blocks: 2, heads: 2, cond_size: 16, context: 48, p_uniform: 0.2}
optimizer: {lr: 1.0e-2, warmup_steps: 2}
training: {steps: 12, global_batch: 8, precision: fp32}
log: {tensorboard: off}
YAML
    [[ -d "$work/shards" ]] || "$bin/gidd-shard" --config "$work/config.yaml" --input "$here/../../../src/base" \
        --output "$work/shards" >"$work/shard.log" 2>&1 || die "gidd-shard: exit $?"
    "$bin/gidd-worker" --config "$work/config.yaml" run.dir="$work/$name" "$@" >"$work/$name.log" 2>&1 ||
        die "gidd-worker: exit $?"
}

# sample MODEL RANKS WORDS...
sample() {
    local from=$1 ranks=$2
    shift 2
    mpirun -q -np "$ranks" "$bin/gidd-sample" --checkpoint "$work/$from" "$@" 2>"$work/sample.log" ||
        die "gidd-sample $*: exit $?"
}

# refused CODE WORD WORDS...: exits with the code and says the word.
refused() {
    local code=$1 word=$2 rc=0
    shift 2
    "$bin/gidd-sample" --checkpoint "$work/hybrid" "$@" >"$work/refused.log" 2>&1 || rc=$?
    [[ $rc -eq $code ]] || die "gidd-sample $*: exit $rc, not $code"
    grep -q -- "$word" "$work/refused.log" || die "gidd-sample $*: does not say '$word'"
}

same_for_all_ranks_and_batches() {
    local ranks batch
    local -a words=(--num 5 --steps 7 --seed 3 --json --infill "int[MASK:3] the end[MASK]" --self-correct --correct-steps 9
        --correct-temperature 0.5 --correct-patience 3)
    sample hybrid 1 "${words[@]}" --batch 8 >"$work/one.json"
    for ranks in 1 2 3; do
        for batch in 1 3 8; do
            sample hybrid "$ranks" "${words[@]}" --batch "$batch" >"$work/other.json"
            cmp "$work/one.json" "$work/other.json" >&2 || die "$ranks ranks, batch $batch: other samples"
        done
    done
    sample masks 1 --num 5 --steps 7 --json --batch 8 >"$work/masks.json"
    sample masks 3 --num 5 --steps 7 --json --batch 1 >"$work/other.json"
    cmp "$work/masks.json" "$work/other.json" >&2 || die "MDLM: other samples on 3 ranks"
    sample hybrid 1 "${words[@]}" --seed 4 >"$work/other.json"
    ! cmp -s "$work/one.json" "$work/other.json" || die "another seed, the same samples"
}

# What is in the files of samples, with Python's eyes.
files_hold_what_they_say() {
    python3 - "$work/one.json" "$work/masks.json" <<'PY' || die "wrong contents"
import json, math, sys
one, masks = ([json.loads(line) for line in open(path)] for path in sys.argv[1:])
assert [s["sample"] for s in one] == list(range(5))
fixed = one[0]["given"]
assert fixed[0] == 0 and len(fixed) > 5
gap = [p for p in range(fixed[-1]) if p not in fixed]
assert len(gap) == 3, gap
assert {s["ended"] for s in one} <= {"converged", "patience", "limit"}
for s in one:
    assert len(s["ids"]) == len(s["before"]) == 48 and len(s["entropy"]) == 6
    assert all(math.isfinite(h) and 0 < h < math.log(275) for h in s["entropy"])
    for p in fixed:
        assert s["ids"][p] == s["before"][p] == one[0]["ids"][p]
    assert s["changed"] == sum(a != b for a, b in zip(s["ids"], s["before"]))
    assert s["changed"] > 0 and s["steps"] <= 9 and s["final_accuracy"] >= s["initial_accuracy"]
    assert s["text"].startswith("int") and " the end" in s["text"]
assert len({tuple(s["ids"]) for s in one}) == 5
for s in masks:
    assert len(s["entropy"]) == 7 and "given" not in s and "before" not in s and 274 not in s["ids"]
PY
}

corrects_a_file() {
    local -a words=(--json --correct-steps 9 --correct-temperature 0.5 --correct-patience 3 --seed 3)
    sample hybrid 1 --num 5 --steps 7 --json --seed 3 --infill "int[MASK:3] the end[MASK]" >"$work/drawn.json"
    sample hybrid 2 "${words[@]}" --batch 2 --correct "$work/drawn.json" >"$work/corrected.json"
    python3 - "$work/one.json" "$work/corrected.json" <<'PY' || die "a corrected file is not what self-correction makes at once"
import json, sys
one, corrected = ([json.loads(line) for line in open(path)] for path in sys.argv[1:])
for a, b in zip(one, corrected, strict=True):
    assert "entropy" not in b
    a.pop("entropy")
    assert a == b
PY
}

shows() {
    sample hybrid 1 --num 2 --steps 7 --self-correct --diff --output "$work/diff.txt"
    grep -q '\[-.*-\]{+.*+}' "$work/diff.txt" || die "--diff shows no change"
    ! grep -q $'\033\[[0-9;]*m' "$work/diff.txt" || die "colours in a file"
    grep -qE '^ +1 +0\.[0-9]{4} -> [01]\.[0-9]{4} ' "$work/diff.txt" || die "no table of self-correction"
    grep -qE '^  mean ' "$work/diff.txt" || die "no means"
    grep -q '^unigram entropy' "$work/diff.txt" || die "no entropy"
    sample hybrid 1 --num 2 --steps 7 --self-correct --diff --color >"$work/colour.txt"
    grep -q $'\033\\[32m' "$work/colour.txt" || die "--color without colours"
    sample hybrid 1 --num 2 --steps 21 --batch 1 --watch >"$work/watched.txt"
    [[ $(grep -c '^sampling sample 0, step ' "$work/sample.log") -eq 11 ]] || die "--watch: not 11 lines a sample"
    grep -q '_' "$work/sample.log" || die "--watch shows no masks"
    sample hybrid 1 --num 2 --steps 21 >"$work/plain.txt"
    cmp "$work/watched.txt" "$work/plain.txt" >&2 || die "--watch changes samples"
    sample hybrid 1 --num 2 --steps 21 --temperature 0.3 >"$work/cold.txt"
    sample hybrid 1 --num 2 --steps 21 --min-p 0.2 >"$work/trimmed.txt"
    ! cmp -s "$work/plain.txt" "$work/cold.txt" || die "--temperature does nothing"
    ! cmp -s "$work/plain.txt" "$work/trimmed.txt" || die "--min-p does nothing"
    python3 - "$bin/gidd-sample" --checkpoint "$work/hybrid" --num 1 --steps 4 --watch <<'PY' || die "--watch: no animation on a terminal"
import os, pty, sys
seen = b""
def read(fd):
    global seen
    data = os.read(fd, 1 << 16)
    seen += data
    return data
sys.stdout.flush()
saved = os.dup(1)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
status = pty.spawn(sys.argv[1:], read)
os.dup2(saved, 1)
assert status == 0 and seen.count(b"\x1b[H\x1b[J") == 3, (status, seen)
PY
}

refuses() {
    printf '[{"position": 3, "ids": [5, 6]}, {"position": 4, "text": "a"}]' >"$work/twice.json"
    printf '[{"position": 47, "ids": [5, 6]}]' >"$work/beyond.json"
    printf '[{"position": 0, "ids": [274]}]' >"$work/mask.json"
    printf '[{"position": 0}]' >"$work/half.json"
    printf '[{"position": 0, "ids": [1]}' >"$work/cut.json"
    printf '{"sample":0,"ids":[1,2,3]}\n' >"$work/short.json"
    printf '\n\n{"ids": 3\n' >"$work/torn.json"
    printf '\n' >"$work/none.json"
    sed -E 's/"ids":\[[0-9]+/"ids":[999/' "$work/drawn.json" >"$work/large.json"
    refused 64 "at least\|number\|steps" --steps 1
    refused 64 "hole of no tokens" --infill "a[MASK:0]b"
    refused 64 "room for 48" --infill "a[MASK:48]b"
    refused 64 "only one of" --infill a --given "$work/twice.json"
    refused 64 "--diff" --diff
    refused 64 "--diff" --diff --json --self-correct
    refused 64 "takes what is given from its file" --correct "$work/drawn.json" --infill a
    refused 65 "twice.json: item 1 gives position 4 a second time" --given "$work/twice.json"
    refused 65 "beyond.json: item 0 ends at position 49" --given "$work/beyond.json"
    refused 65 "mask.json: item 0" --given "$work/mask.json"
    refused 65 "half.json: item 0 is not" --given "$work/half.json"
    refused 65 "cut.json:1:" --given "$work/cut.json"
    refused 66 "nothing.json" --given "$work/nothing.json"
    refused 66 "nothing.txt" --infill-file "$work/nothing.txt"
    refused 65 "short.json:1: \"ids\" is not a list of the model's 48" --correct "$work/short.json"
    refused 65 "large.json:1: id 0" --correct "$work/large.json"
    refused 65 "torn.json:3: not a sample" --correct "$work/torn.json"
    refused 65 "holds no samples" --correct "$work/none.json"
    refused 66 "nothing.json" --correct "$work/nothing.json"
    refused 73 "cannot create" --steps 2 --num 1 --output "$work/nowhere/a.txt"
}

model hybrid
model masks diffusion.process=mdlm model.p_uniform=0
same_for_all_ranks_and_batches
files_hold_what_they_say
corrects_a_file
shows
refuses
echo "sample_tool: all well"
