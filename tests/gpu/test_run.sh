#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# test_run.sh BIN_DIR: run.sh without a GPU: its exit codes, its table, and that a failing part is told and stops no other.
set -euo pipefail
bin=$1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/gidd-run-XXXXXX")
trap 'rm -rf "$work"' EXIT
export OMP_NUM_THREADS=1

complain() {
    printf 'FAIL %s\n' "$*" >&2
    cat "$work/said" >&2
    tail -n 60 "$work/report" >&2 || true
    exit 1
}

# expect CODE ARGUMENTS...
expect() {
    local wanted=$1 code=0
    shift
    bash "$here/run.sh" --bin "$bin" --report "$work/report" "$@" >"$work/said" 2>&1 || code=$?
    [[ $code -eq $wanted ]] || complain "run.sh $*: exit $code, not $wanted"
}

"$bin/device_present" cuda >/dev/null 2>&1 || expect 77 --device cuda
expect 64 --device abacus
expect 64 no_such_part
expect 64 --device emu --peak fast

expect 0 --device emu --short
for part in kernels parity repeat training recompute graphs step base; do
    grep -qE "^  $part +ok " "$work/said" || complain "$part is not ok"
done
for part in nccl gemm memcheck racecheck initcheck; do
    grep -qE "^  $part +skipped " "$work/said" || complain "$part is not skipped"
done
grep -qE '^  step +ok .* tokens_per_s [0-9.]+, executed_of_ceiling_percent [0-9.e-]+, batch 2' "$work/said" || complain "no rate of a step"
grep -q '^gidd .* on emu: ' "$work/report" || complain "the report does not say what ran where"

# a failing kernel test, and one that the device gets wrong by more than the bound
mkdir "$work/broken"
ln -s "$bin"/* "$work/broken/"
ln -sf "$(command -v false)" "$work/broken/test_update"
bin=$work/broken expect 1 --device cpu --short kernels recompute
grep -qE '^  kernels +FAILED .*1 of 2 programs pass' "$work/said" || complain "a failing test is not told"
grep -qE '^  recompute +ok ' "$work/said" || complain "a failure stopped the next part"

runs() {
    local step
    for step in 1 2 3; do
        printf '{"step":%d,"loss":%s,"lr":1}\n' "$step" "$(awk -v s="$step" -v e="$2" 'BEGIN { printf "%.9g", 2 / s + e * s }')"
    done >"$work/$1.jsonl"
}
runs cpu 0
runs control 1e-6
runs near 1e-5
runs far 1e-4
compare() { awk -f "$here/compare_runs.awk" "$work/cpu.jsonl" "$work/control.jsonl" "$work/$1.jsonl" >"$work/said" 2>&1; }
compare near || complain "16 times the control's difference is allowed"
compare far && complain "100 times the control's difference is too much"
head -n 2 "$work/near.jsonl" >"$work/cut.jsonl"
compare cut && complain "a step is missing"
sed 's/"loss":[^,]*/"loss":null/' "$work/near.jsonl" >"$work/none.jsonl"
compare none && complain "a loss that is no number"
printf 'ok\n'
