#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# golden_checkpoint.sh BIN ARCHIVE: a run that was interrupted at step 3 when the format was new (tests/golden) still
# verifies, can be evaluated, and goes on to the loss that it had then; a checkpoint of a later format is refused by its
# version, and neither renamed nor passed over.
set -euo pipefail
bin=$1 archive=$2
work=$(mktemp -d "${TMPDIR:-/tmp}/gidd-golden-XXXXXX")
trap 'rm -rf "$work"' EXIT
export OMP_NUM_THREADS=1
cd "$work"

die() {
    printf 'FAIL golden checkpoint: %s\n' "$*" >&2
    tail -n 20 log >&2
    exit 1
}

# expect CODE WORDS COMMAND...: its exit code, and words that it says.
expect() {
    local want=$1 words=$2 got=0
    shift 2
    "$@" >log 2>&1 || got=$?
    [[ $got -eq $want ]] || die "exit $got, expected $want: $*"
    grep -qF -- "$words" log || die "'$words' was not said: $*"
}

tar -xf "$archive"
expect 0 "step-000000003: intact, 3 of 3 blocks good" "$bin/gidd-checkpoint" verify golden-run
expect 0 "tokens seen      192" "$bin/gidd-checkpoint" inspect golden-run
expect 0 "elbo" "$bin/gidd-eval" --checkpoint golden-run --json
expect 0 "at step 3 of 6" "$bin/gidd-worker" --config config.yaml
python3 - golden-run/metrics.jsonl <<'PY' || die "the golden run does not go on as it did"
import json, sys
last = [json.loads(line) for line in open(sys.argv[1]) if "valid_elbo" in line][-1]
print(last)
sys.exit(not (last["step"] == 6 and abs(last["valid_elbo"] - 5.67704654) < 1e-4))
PY

before=$(find future | sort)
expect 69 "format version 999, this program reads 1" "$bin/gidd-checkpoint" inspect future
expect 69 "format version 999, this program reads 1" "$bin/gidd-worker" --config config.yaml run.dir=future
rm -f future/config.yaml future/data.verified
[[ $(find future | sort) == "$before" ]] || die "the later checkpoint was touched"
printf 'ok: version 1 is read, a later one refused\n'
