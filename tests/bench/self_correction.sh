#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# bash tests/bench/self_correction.sh prepare|train|report [FOLDER]
#
# Does hybrid noise with self-correction repay itself? Two models of the same size see the same text in the same order
# for the same number of steps; one is trained with p_u = 0.2, the other with masks alone. A third, autoregressive one
# on the same text is the judge of their samples: it has no part in making them. Everything happens in FOLDER (default
# data/self-correction); the programs are those of $GIDD_BIN (default build/bin).
#
#   prepare   the King James Bible as Debian packages it, in passages of ten verses; GPT-2's first 1500 merges as the
#             tokenizer; shards. The order of passages is that of their digests: the last 200 are a sample of all books.
#   train     all runs in turns, SLICE minutes each, so that at any time all have seen about as much; started again
#             it goes on.
#   report    from each model NUM samples of STEPS steps, and the same after self-correction; the ELBO of all of them
#             under both models and their likelihood under the judge, beside the entropy of their single tokens; the
#             table FOLDER/report.md.
#
#     GIDD_TOKENIZER_DIR   a folder that holds GPT-2's vocab.bpe (else it is fetched)
#     SLICE                minutes of one turn of training (3)
#     NUM, STEPS           of sampling (256, 128)
#     RANKS                of sampling and evaluation (1)
#     JUDGE                a GPT-2 in safetensors, for its perplexity as well
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/../.." && pwd)
# shellcheck source=hpc/lib/common.sh
. "$top/hpc/lib/common.sh"
use_open_mpi_here

readonly phase=${1:-} folder=${2:-data/self-correction} bin=${GIDD_BIN:-$top/build/bin}
readonly runs=(pu0.2 pu0.0) judge=autoregressive merges=1500 verses=10
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

# The text, one verse a line with its reference in front: the package is unpacked, not installed.
fetch_text() {
    local work=$folder/package
    mkdir -p "$work"
    (cd "$work" && apt-get -q download bible-kjv bible-kjv-text >&2)
    for package in "$work"/*.deb; do
        dpkg-deb -x "$package" "$work"
    done
    (cd "$work/usr/lib" && ../bin/bible -f Ge1:1-Rev22:21)
}

# Passages of ten verses of one book, without references, named by their digests.
cut_passages() {
    local passages=$1
    mkdir -p "$passages"
    perl -ne '
        my ($book, $text) = /^(\d?[A-Za-z]+)\d+:\d+ (.*)$/ or die "not a verse: $_";
        if (@verses && ($book ne $last || @verses == '"$verses"')) { put(); }
        $last = $book;
        push @verses, $text;
        END { put(); }
        sub put {
            use Digest::MD5 "md5_hex";
            my $passage = join("\n", @verses) . "\n";
            open(my $file, ">", "'"$passages"'/" . md5_hex($passage) . ".txt") or die;
            print $file $passage;
            close($file) or die;
            @verses = ();
        }'
}

prepare() {
    local tokenizer=${GIDD_TOKENIZER_DIR:-$folder/gpt2}
    [[ -f "$tokenizer/vocab.bpe" ]] || bash "$top/hpc/fetch-tokenizer.sh" "$tokenizer"
    mkdir -p "$folder/tokenizer"
    python3 "$top/tests/fixtures/make_tokenizer.py" "$folder/tokenizer" "$tokenizer/vocab.bpe" "$merges"
    fetch_text | cut_passages "$folder/corpus"
    "$bin/gidd-shard" --config "$here/self_correction.yaml" --input "$folder/corpus" --output "$folder/shards" \
        data.tokenizer="$folder/tokenizer"
    "$bin/gidd-shard" info "$folder/shards"
}

# One turn of one run. 0: it has reached its last step, 75: it has not.
train_slice() {
    local code=0 kind=model.p_uniform=${1#pu}
    [[ $1 != "$judge" ]] || kind=model.type=autoregressive
    mpirun -q -np 1 "$bin/gidd-worker" --config "$here/self_correction.yaml" "$kind" \
        run.dir="$folder/$1" data.dir="$folder/shards" data.tokenizer="$folder/tokenizer" \
        run.max_minutes="${SLICE:-3}" </dev/null || code=$?
    return "$code"
}

train() {
    local finished=0 run code
    while ((finished <= ${#runs[@]})); do
        finished=0
        for run in "${runs[@]}" "$judge"; do
            code=0
            train_slice "$run" || code=$?
            case $code in
            0) finished=$((finished + 1)) ;;
            75 | 76) ;; # 76: nothing moved for too long, as on a busy machine; the last checkpoint stands
            *) die "$code" "the run $run ended with exit code $code" ;;
            esac
        done
    done
}

ranks() {
    mpirun -q -np "${RANKS:-1}" "$@" </dev/null
}

# score NAME MODEL TEXTS...: gidd-eval's numbers to NAME.json. Without TEXTS the validation split is scored.
score() {
    local name=$1 model=$2
    shift 2
    [[ -s "$folder/report/$name.json" ]] ||
        ranks "$bin/gidd-eval" --checkpoint "$folder/$model" --draws 16 --json "$@" data.dir="$folder/shards" \
            >"$folder/report/$name.json.new"
    [[ -s "$folder/report/$name.json" ]] || mv "$folder/report/$name.json.new" "$folder/report/$name.json"
}

# What is there already is not made again, so that an interrupted report goes on.
report() {
    local run model kind file
    mkdir -p "$folder/report"
    for run in "${runs[@]}"; do
        file=$folder/report/$run
        [[ -s "$file.drawn.jsonl" ]] || ranks "$bin/gidd-sample" --checkpoint "$folder/$run" --json --batch 16 \
            --tokenizer "$folder/tokenizer" --num "${NUM:-256}" --steps "${STEPS:-128}" --output "$file.drawn.jsonl"
        [[ -s "$file.corrected.jsonl" ]] || ranks "$bin/gidd-sample" --checkpoint "$folder/$run" --json --batch 16 \
            --tokenizer "$folder/tokenizer" --correct "$file.drawn.jsonl" --output "$file.corrected.jsonl"
        score "$run.valid" "$run"
        for kind in drawn corrected; do
            for model in "${runs[@]}" "$judge"; do
                [[ -d "$folder/$model" ]] || continue # a report without the judge is one too
                score "$run.$kind.by.$model" "$model" --samples "$file.$kind.jsonl"
            done
            if [[ -n "${JUDGE:-}" && ! -s "$file.$kind.judge.json" ]]; then
                ranks "$bin/gidd-eval" --judge "$JUDGE" --samples "$file.$kind.jsonl" --json \
                    --tokenizer "$folder/tokenizer" >"$file.$kind.judge.json"
            fi
        done
    done
    python3 "$here/self_correction_report.py" "$folder/report" "${runs[@]}" | tee "$folder/report.md"
}

case $phase in
prepare | train | report) "$phase" ;;
*) die 64 "usage: self_correction.sh prepare|train|report [FOLDER]" ;;
esac
