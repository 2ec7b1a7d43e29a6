#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Models in and out, through the programs. The model is that of tests/golden/micro.h5, so that an independent
# implementation's logits say whether a published model means here what it means there.
# usage: exchange.sh SCENARIO BIN_DIR       SCENARIO: see the functions scenario_* below
set -euo pipefail
scenario=$1
bin=$2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
golden=$here/../../golden/micro.h5
work=$(mktemp -d "${TMPDIR:-/tmp}/gidd-exchange-XXXXXX")
trap 'rm -rf "$work"' EXIT
export OMP_NUM_THREADS=1

die() {
    printf 'FAIL %s: %s\n' "$scenario" "$*" >&2
    [[ ! -e "$work/log" ]] || tail -n 15 "$work/log" >&2
    exit 1
}

# run WORDS...: a command that must succeed; its output in $work/log.
run() {
    "$@" >"$work/log" 2>&1 || die "$*: exit $?"
}

# refuse CODE WORDS_OF_THE_MESSAGE COMMAND...: a command that must fail so, and say so.
refuse() {
    local code=$1 story=$2 rc=0
    shift 2
    "$@" >"$work/log" 2>&1 || rc=$?
    [[ $rc -eq $code ]] || die "$*: exit $rc, not $code"
    grep -qF -- "$story" "$work/log" || die "$*: the message does not say '$story'"
}

# agree MODEL: the reference's logits and intermediates, with the parameters of MODEL.
agree() {
    run "$bin/gidd-parity" --section forward --model "$1" "$golden"
    grep -q 'all agree' "$work/log" || die "$1 gives other logits than the reference"
}

scenario_published() { # --model reads what the reference writes, and gives its logits
    run "$bin/vectors_model" "$golden" "$work/model"
    agree "$work/model"
    agree "$work/model/model.safetensors"
}

scenario_round() { # published -> run -> published, both ways of counting rows: the same bits, the same logits
    local rows
    for rows in 128 97; do # all, as in the code's own models; without those of no id, as in published ones
        run "$bin/vectors_model" "$golden" "$work/model$rows" --rows "$rows"
        run "$bin/gidd-checkpoint" import "$work/model$rows" "$work/run$rows" training.precision=fp32
        run "$bin/gidd-checkpoint" verify "$work/run$rows"
        run "$bin/gidd-checkpoint" export "$work/run$rows" "$work/again$rows"
        cmp "$work/model$rows/model.safetensors" "$work/again$rows/model.safetensors" >"$work/log" 2>&1 ||
            python3 "$here/compare_tensors.py" "$work/model$rows/model.safetensors" "$work/again$rows/model.safetensors" \
                >"$work/log" 2>&1 || die "$rows rows: the round trip changes tensors"
        run "$bin/gidd-checkpoint" import "$work/again$rows" "$work/run$rows-again" training.precision=fp32
        cmp "$work/run$rows/checkpoints/step-000000000/state.bin" \
            "$work/run$rows-again/checkpoints/step-000000000/state.bin" >"$work/log" 2>&1 || die "$rows rows: state.bin differs"
    done
    agree "$work/again128" # what came out of the run
    # half the bytes, and the parameters rounded to nearest: exporting them once more changes nothing
    run "$bin/gidd-checkpoint" export --dtype bf16 "$work/run128" "$work/half"
    run "$bin/gidd-checkpoint" export --dtype bf16 "$work/half" "$work/half-again"
    run cmp "$work/half/model.safetensors" "$work/half-again/model.safetensors"
    # on two ranks as on one
    run mpirun -np 2 "$bin/gidd-checkpoint" import "$work/model128" "$work/run2" training.precision=fp32
    run cmp "$work/run128/checkpoints/step-000000000/state.bin" "$work/run2/checkpoints/step-000000000/state.bin"
    refuse 73 "has checkpoints already" "$bin/gidd-checkpoint" import "$work/model128" "$work/run128"
    refuse 73 "again128 exists" "$bin/gidd-checkpoint" export "$work/run128" "$work/again128"
}

"scenario_$scenario"
printf 'ok %s\n' "$scenario"
