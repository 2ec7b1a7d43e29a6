#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# quickstart_flow.sh ROOT: the order of things in hpc/quickstart.sh, with stand-ins for the build, mpirun and the
# programs: one interruption on the first run, reuse on the second, refusal of another corpus, a failing phase named.
set -uo pipefail

root=$(realpath "$1")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir -p "$folder/tree" "$folder/bin" "$folder/texts" "$folder/other"
cp -r "$root/hpc" "$root/configs" "$folder/tree/"
cd "$folder" || exit 1
export PATH="$folder/bin:$PATH" CALLS="$folder/calls" GIDD_QUICKSTART_MINUTES=0.05
unset GIDD_TOKENIZER_DIR GIDD_CORPUS
failures=0

# Everything is installed, every hash is right; the build makes the stand-ins below.
printf '#!/bin/sh\necho "install ok installed"\n' >bin/dpkg-query
printf '#!/bin/sh\nexit 0\n' >bin/sha256sum
printf '#!/bin/sh\nexit 0\n' >bin/apt-get
# shellcheck disable=SC2016 # the stand-in's own words
printf '#!/bin/sh\necho "cmake $*" >>"$CALLS"\nmkdir -p build/bin && cp -f %s/stand-ins/* build/bin/\n' "$folder" >bin/cmake
printf '#!/bin/sh\nshift 3 # -q -np 2\nexec "$@"\n' >bin/mpirun
mkdir stand-ins
cat >stand-ins/gidd-shard <<'FAKE'
#!/usr/bin/env bash
printf 'gidd-shard %s\n' "$*" >>"$CALLS"
if [[ "$1" = --config ]]; then
    mkdir -p data/demo/shards && : >data/demo/shards/index.json
fi
FAKE
cat >stand-ins/gidd-worker <<'FAKE'
#!/usr/bin/env bash
printf 'gidd-worker %s\n' "$*" >>"$CALLS"
mkdir -p runs/demo/checkpoints
save() {
    mkdir -p "runs/demo/checkpoints/step-$step" && : >"runs/demo/checkpoints/step-$step/manifest.json"
}
trap 'printf "usr1\n" >>"$CALLS"; save; exit 75' USR1
step=$(find runs/demo/checkpoints -name manifest.json | wc -l)
for _ in $(seq 40); do
    step=$((step + 5))
    printf '{"step":%d,"loss":1}\n' "$step" >>runs/demo/metrics.jsonl
    sleep 0.05
done
save
exit "${WORKER_CODE:-75}"
FAKE
for program in gidd-eval gidd-sample gidd-plot gidd-tokenize gidd-checkpoint; do
    # shellcheck disable=SC2016 # the stand-in's own words
    printf '#!/bin/sh\necho "%s $*" >>"$CALLS"\necho "%s says hello" | tee -a runs/demo/samples/quickstart.txt\ntest "$FAIL" != %s || exit 65\n' \
        "$program" "$program" "$program" >"stand-ins/$program"
done
chmod +x bin/* stand-ins/*
mkdir -p tree/data/tokenizer tree/runs/demo/samples
touch tree/data/tokenizer/vocab.bpe tree/data/tokenizer/encoder.json

# quickstart NAME WANTED_CODE WORDS...
quickstart() {
    local name=$1 wanted=$2 code=0
    shift 2
    : >calls
    timeout 60 bash tree/hpc/quickstart.sh "$@" >log 2>&1 || code=$?
    [[ "$code" -eq "$wanted" ]] || complain "$name: exit code $code instead of $wanted"
}

complain() {
    printf '%s\n' "$1"
    sed 's/^/    /' log calls
    failures=$((failures + 1))
}

# expect FILE COUNT TEXT
expect() {
    local count
    count=$(grep -cF -- "$3" "$1")
    [[ "$count" -eq "$2" ]] || complain "\"$3\" stands $count times in $1 instead of $2"
}

quickstart "first run" 0 texts
expect calls 1 "gidd-shard --config configs/demo.yaml --input $folder/texts --output data/demo/shards"
expect calls 2 "gidd-worker --config configs/demo.yaml run.max_minutes="
expect calls 1 "usr1"
expect calls 1 "gidd-eval --checkpoint runs/demo"
expect calls 1 "gidd-sample --checkpoint runs/demo --num 4 --steps 64 --output runs/demo/samples/quickstart.txt"
expect calls 1 "gidd-plot runs/demo --output runs/demo/loss.svg"
expect log 1 "== What was made"
expect log 1 "    gidd-eval says hello"
expect log 1 'exit code 75: "checkpoint committed, run me again"'

quickstart "second run" 0 texts
expect calls 1 "gidd-shard verify data/demo/shards"
expect calls 0 "gidd-shard --config"
expect calls 1 "run.max_minutes"
expect calls 0 "usr1"

quickstart "another corpus" 64 other
expect log 1 "data/demo was made from $folder/texts"
expect calls 0 "run.max_minutes"

quickstart "no such corpus" 66 absent

FAIL=gidd-eval quickstart "a failing phase" 65 texts
expect log 1 '"7/9 evaluation" failed with exit code 65; its log is data/demo/log/evaluate.log'
expect log 0 "== What was made"

WORKER_CODE=76 quickstart "a lost peer" 76 texts
expect log 1 "training, interrupted and resumed once\" failed with exit code 76"

printf '%d failures\n' "$failures"
[[ "$failures" -eq 0 ]]
