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

"scenario_$scenario"
printf 'ok %s\n' "$scenario"
