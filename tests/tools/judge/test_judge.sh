#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# gidd-eval --judge: the same perplexity from texts and ids, on any number of ranks and in any batch; entropies beside
# it; what it refuses.
# usage: test_judge.sh BIN_DIR
set -euo pipefail
bin=$1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/gidd-judge-XXXXXX")
trap 'rm -rf "$work"' EXIT
export OMP_NUM_THREADS=1
judge=$here/../../golden/gpt2/model.safetensors
common=(--tokenizer "$here/../../fixtures/tokenizer" --json device.kind=cpu)

die() {
    printf 'FAIL %s\n' "$*" >&2
    cat "$work"/*.err >&2
    exit 1
}

printf '%s\n' '{"sample":0,"text":"the test"}' '{"sample":1,"text":"aaaaaaaaaaaa"}' '{"sample":2,"text":"the in the on"}' \
    '{"sample":3,"text":""}' '{"sample":4,"text":"and so it goes on and on, beyond the window of the judge"}' >"$work/text.jsonl"
# "the test", "aaaaaaaaaaaa" in single bytes, with an end of text and what must not count behind it
printf '%s\n' '{"ids":[272,83,71,68,220,83,68,82,83,272,7]}' '{"ids":[64,64,64,64,64,64,64,64,64,64,64,64,273,273]}' >"$work/ids.jsonl"
head -n 2 "$work/text.jsonl" >"$work/two.jsonl"
sed -n 2p "$work/text.jsonl" >"$work/same.jsonl"

run() { # run NAME COMMAND...
    local name=$1
    shift
    "$@" >"$work/$name.json" 2>"$work/$name.err" || die "$name: exit $?"
}
run one "$bin/gidd-eval" --judge "$judge" --samples "$work/text.jsonl" "${common[@]}"
run two mpirun -np 2 "$bin/gidd-eval" --judge "$judge" --samples "$work/text.jsonl" --batch 1 "${common[@]}"
run text "$bin/gidd-eval" --judge "$judge" --samples "$work/two.jsonl" "${common[@]}"
run same "$bin/gidd-eval" --judge "$judge" --samples "$work/same.jsonl" "${common[@]}"
run ids "$bin/gidd-eval" --judge "$judge" --samples "$work/ids.jsonl" "${common[@]}"
python3 - "$work" <<'PY' || die "numbers"
import json, math, sys
one, two, text, ids, same = (json.load(open(f"{sys.argv[1]}/{name}.json")) for name in ("one", "two", "text", "ids", "same"))
close = lambda a, b: abs(a - b) <= 1e-6 * (1 + abs(a))
assert one["samples"] == 5 and one["empty"] == 1 and one["cut"] == 1, one
assert all(close(one[key], two[key]) for key in one if key != "judge"), (one, two)
assert all(close(text[key], ids[key]) for key in text if key != "judge"), (text, ids)
assert close(one["generative_ppl"], math.exp(one["generative_nll"]))
# what tests/golden/gpt2_vectors.py gives the twelve ids 64 behind 272; one word again and again has no entropy
assert abs(same["generative_nll"] - 5.00765099) < 1e-5 and same["tokens"] == 12 and same["sample_entropy"] == 0, same
assert 0 < text["sample_entropy"] < text["unigram_entropy"] < math.log(273), text
PY

refuse() { # refuse CODE ARGUMENTS...
    local code=$1 rc=0
    shift
    "$bin/gidd-eval" "$@" "${common[@]}" >/dev/null 2>"$work/refuse.err" || rc=$?
    [[ $rc -eq $code ]] || die "$*: exit $rc, not $code"
}
refuse 64 --judge "$judge"
refuse 64 --samples "$work/text.jsonl"
refuse 64 --judge "$judge" --samples "$work/text.jsonl" --checkpoint "$work"
refuse 66 --judge "$work/none.safetensors" --samples "$work/text.jsonl"
refuse 66 --judge "$judge" --samples "$work/none.jsonl"
refuse 65 --judge "$work/text.jsonl" --samples "$work/text.jsonl"
printf 'no json\n' >"$work/bad.jsonl"
refuse 65 --judge "$judge" --samples "$work/bad.jsonl"
grep -q 'bad.jsonl:1' "$work/refuse.err" || die "the error does not name the line"
cp "$judge" "$work/model.safetensors"
refuse 66 --judge "$work/model.safetensors" --samples "$work/text.jsonl"
grep -q 'config.json' "$work/refuse.err" || die "the error does not name config.json"
printf 'ok\n'
