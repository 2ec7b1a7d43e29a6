#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# test_plot_tool.sh GIDD_PLOT: curves in the right place, gaps and unfinished lines passed over, exit codes, and no
# half-written picture.
set -uo pipefail

plot=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
failures=0

complain() {
    printf '%s\n' "$1"
    failures=$((failures + 1))
}

# expect_code CODE WORD WORDS...: of gidd-plot with the words; WORD stands in what it says.
expect_code() {
    local wanted=$1 word=$2 code=0
    shift 2
    "$plot" "$@" >said 2>&1 || code=$?
    [[ "$code" -eq "$wanted" ]] || complain "gidd-plot $*: exit code $code instead of $wanted: $(<said)"
    grep -qF -- "$word" said || complain "gidd-plot $*: no \"$word\" in: $(<said)"
}

mkdir 'run <1>'
cat >'run <1>/metrics.jsonl' <<'LINES'
{"step":0,"loss":10,"elbo":4}
{"step":50,"loss":5,"elbo":null,"ppl":null}
{"step":50,"valid_loss":6,"valid_elbo":3}
{"step":100,"loss":2,"elbo":2}
LINES
printf '{"step":150,"lo' >>'run <1>/metrics.jsonl' # as a running job leaves it

expect_code 0 "2 training and 1 validation points" 'run <1>/'
picture='run <1>/loss.svg'
[[ -s "$picture" ]] || complain "no loss.svg in the run's folder"
# 0 and 100 are the ends of the axis of steps (x 70 to 840), 4 and 2 those of the values (y 46 to 426)
grep -q 'class="train" points="70.0,46.0 840.0,426.0 "' "$picture" || complain "the training curve: $(grep 'class="train" points' "$picture")"
grep -q 'class="valid" points="455.0,236.0 "' "$picture" || complain "the validation curve: $(grep 'class="valid" points' "$picture")"
grep -qF 'run &#60;1&#62;' "$picture" || complain "the title is not escaped"
[[ "$(tail -n 1 "$picture")" = "</svg>" ]] || complain "the picture does not end"

expect_code 0 "3 training and 1 validation points" 'run <1>/metrics.jsonl' --key loss --output other.svg
grep -q 'loss, as trained' other.svg || complain "the axis of losses has no name"

printf '{"step":7,"elbo":3}\n' >one.jsonl
expect_code 0 "1 training and 0 validation points" one.jsonl --output one.svg
grep -qiE 'nan|inf' one.svg && complain "one point alone makes no numbers"

# a step that left clean rows out has no elbo: its part is drawn, and named
printf '{"step":0,"elbo_noised":4}\n{"step":100,"elbo":2}\n' >noised.jsonl
expect_code 0 "2 training and 0 validation points" noised.jsonl --output noised.svg
grep -q 'training, noised tokens' noised.svg || complain "a part of the ELBO is drawn as the ELBO"
grep -q 'noised' one.svg && complain "the ELBO is named as a part of it"

expect_code 64 "which run?"
expect_code 64 "loss, elbo or nll" one.jsonl --key accuracy
expect_code 64 "one run at a time" one.jsonl two.jsonl
expect_code 66 "absent" absent
printf '{"step":1,"lr":0}\n' >empty.jsonl
expect_code 66 "no value of elbo" empty.jsonl
printf '{"step":1,"elbo":3}\njunk\n' >bad.jsonl
expect_code 65 "bad.jsonl:2" bad.jsonl
printf '{"step":1.5,"elbo":3}\n' >real.jsonl
expect_code 65 "real.jsonl:1" real.jsonl
expect_code 73 "nowhere" one.jsonl --output nowhere/a.svg
if [[ -c /dev/full ]]; then
    expect_code 74 "No space" one.jsonl --output /dev/full
fi
[[ -z "$(find . -name '*.tmp')" ]] || complain "left behind: $(find . -name '*.tmp')"

printf '%d failures\n' "$failures"
[[ "$failures" -eq 0 ]]
