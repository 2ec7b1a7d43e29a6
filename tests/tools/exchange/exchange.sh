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

scenario_bad() { # everything that can be wrong with a published model: named, refused, exit code 65
    local kind story count=0
    run "$bin/vectors_model" "$golden" "$work/model"
    while IFS='|' read -r kind story; do
        run python3 "$here/damage_model.py" "$work/model" "$work/$kind" "$kind"
        refuse 65 "$story" "$bin/gidd-checkpoint" export "$work/$kind" "$work/$kind-out"
        [[ ! -e "$work/$kind-out" ]] || die "$kind: something was written"
        count=$((count + 1))
    done <<'KINDS'
overlap|tensor blocks.1.attn_qkv.weight begins at byte
range|tensor vocab_embed.embedding: its data end at byte
cut|but the file has only
dtype|tensor blocks.1.attn_qkv.weight has dtype I32
shape|tensor blocks.1.attn_qkv.weight has shape [64, 192], must be [192, 64]
missing|tensor blocks.1.attn_qkv.weight is missing
surplus|tensor blocks.9.norm1.weight is not of this model
twice|duplicate
nan|tensor blocks.1.attn_qkv.weight: element 5 is nan
rotary|tensor rotary_emb.sin_cached is not the rotary table of this model
bias|tensor logit_bias is 1
header|its header has 1099511627776 bytes
text|not valid JSON
no-config|no config.json
no-tensors|no model.safetensors
type|model_type is 'gpt2'
layers|num_hidden_layers is no whole number
vocabulary|vocab_size 100 does not fit a tokenizer of 95 ids
width|model.hidden_size: 63
KINDS
    [[ $count -eq 19 ]] || die "only $count kinds were tried"
    refuse 66 "no checkpoint" "$bin/gidd-checkpoint" export "$work/nothing" "$work/out"
    refuse 64 "--dtype" "$bin/gidd-checkpoint" export --dtype fp8 "$work/model" "$work/out"
    refuse 65 "config.json" "$bin/gidd-checkpoint" import "$work/no-config" "$work/run"
    refuse 65 "is missing" "$bin/gidd-sample" --model "$work/missing"
    refuse 65 "is missing" "$bin/gidd-eval" --model "$work/missing/model.safetensors"
    refuse 64 "one of --checkpoint and --model" "$bin/gidd-eval" --model "$work/model" --checkpoint "$work/model"
    refuse 78 "the model has '64'" "$bin/gidd-eval" --model "$work/model" model.hidden_size=128
}

# A configuration of a small model, and shards to train it on: the sources' own headers.
prepare_training() {
    cat >"$work/config.yaml" <<YAML
run: {dir: $work/run, seed: 7}
data: {dir: $work/shards, tokenizer: $here/../../fixtures/tokenizer, suffixes: h, valid_documents: 8}
model: {hidden_size: 32, blocks: 2, heads: 2, cond_size: 16, context: 64, p_uniform: 0.1}
optimizer: {lr: 3.0e-3, warmup_steps: 2}
training: {steps: 8, global_batch: 8, precision: fp32}
checkpoint: {every_steps: 0}
eval: {every_steps: 0}
log: {every_steps: 2, tensorboard: off}
YAML
    run "$bin/gidd-shard" --config "$work/config.yaml" --input "$here/../../../src/base" --output "$work/shards"
}

# train RUN [overrides...]
train() {
    run mpirun -np 2 "$bin/gidd-worker" --config "$work/config.yaml" "run.dir=$work/$1" "${@:2}"
}

# Evaluations of two models that must be the same but for their paths.
same_eval() {
    grep -vF "$work" "$1" >"$1.numbers"
    grep -vF "$work" "$2" >"$2.numbers"
    run diff "$1.numbers" "$2.numbers"
    [[ $(wc -l <"$1.numbers") -gt 3 ]] || die "$1 has no numbers"
}

scenario_trained() { # a model trained here: evaluated and sampled from what was exported as from the run
    prepare_training
    train run
    run "$bin/gidd-checkpoint" export "$work/run" "$work/model"
    run cmp "$here/../../fixtures/tokenizer/encoder.json" "$work/model/vocab.json"
    "$bin/gidd-eval" --checkpoint "$work/run" >"$work/eval-run" 2>"$work/log" || die "gidd-eval: exit $?"
    "$bin/gidd-eval" --config "$work/config.yaml" --model "$work/model" >"$work/eval-model" 2>"$work/log" ||
        die "gidd-eval --model: exit $?"
    same_eval "$work/eval-run" "$work/eval-model"
    "$bin/gidd-sample" --checkpoint "$work/run" --num 2 --steps 4 >"$work/sample-run" 2>"$work/log" || die "gidd-sample: exit $?"
    "$bin/gidd-sample" --model "$work/model/model.safetensors" --num 2 --steps 4 --tokenizer "$here/../../fixtures/tokenizer" \
        training.precision=fp32 >"$work/sample-model" 2>"$work/log" || die "gidd-sample --model: exit $?"
    run cmp "$work/sample-run" "$work/sample-model"
    # another tokenizer than the model's is refused, not decoded with
    cp -r "$here/../../fixtures/tokenizer" "$work/tokenizer"
    printf '\n' >>"$work/tokenizer/encoder.json"
    refuse 65 "another tokenizer" "$bin/gidd-sample" --model "$work/model" --num 1 --steps 2 --tokenizer "$work/tokenizer"
    refuse 65 "another tokenizer" "$bin/gidd-checkpoint" export "$work/run" "$work/model2" "data.tokenizer=$work/tokenizer"
}

last_state() { # RUN: its newest state.bin
    printf '%s\n' "$work/$1"/checkpoints/step-?????????/state.bin | tail -n 1
}

scenario_package() { # what was exported, as the packages of others see it; skipped without them
    local base_ids rc=0
    python3 -c 'import numpy, safetensors' 2>/dev/null || {
        printf 'no Python packages numpy and safetensors on this machine\n'
        exit 77
    }
    prepare_training
    train run training.steps=3
    run "$bin/gidd-checkpoint" export "$work/run" "$work/model"
    base_ids=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["gidd"]["base_ids"])' "$work/model/config.json")
    python3 "$here/package_reads.py" "$work/model" "$base_ids" >"$work/log" 2>&1 || rc=$?
    [[ $rc -eq 0 ]] || die "package_reads.py: exit $rc"
    cat "$work/log"
}

scenario_init() { # training starts from a model, whatever form it has; also with another p_u
    prepare_training
    train base
    run "$bin/gidd-checkpoint" export "$work/base" "$work/model"
    # from the run, the folder and the file: the same bytes after training; from nothing: others
    train from-run "model.init_from=$work/base" model.p_uniform=0.2
    train from-folder "model.init_from=$work/model" model.p_uniform=0.2
    train from-nothing model.p_uniform=0.2
    run cmp "$(last_state from-run)" "$(last_state from-folder)"
    ! cmp -s "$(last_state from-run)" "$(last_state from-nothing)" || die "init_from changes nothing"
    grep -q '"event":"init".*model.p_uniform 0.2.*, was 0.1' "$work/from-folder/journal.jsonl" || die "the journal does not say it"
    # the same through an import, whose other keys are the run's; 1 rank
    run "$bin/gidd-checkpoint" import "$work/model" "$work/imported" --config "$work/config.yaml"
    train imported model.p_uniform=0.2
    run cmp "$(last_state from-run)" "$(last_state imported)"
    # it begins where the model stood: the first loss is the trained one's
    run python3 - "$work/base/metrics.jsonl" "$work/from-folder/metrics.jsonl" <<'PY'
import json, sys
first, again = ([json.loads(line)["loss"] for line in open(path) if '"loss"' in line] for path in sys.argv[1:3])
assert again[0] < 0.9 * first[0], (first, again)
PY
    # a model as they were published before PAD: without rows of no id, and PAD is EOS; it leaves as it came
    train eos model.pad=eos training.steps=3
    run "$bin/gidd-checkpoint" export "$work/eos" "$work/model-eos"
    run python3 "$here/damage_model.py" "$work/model-eos" "$work/published" unrounded
    train from-published "model.init_from=$work/published" model.pad=eos training.steps=3
    run "$bin/gidd-checkpoint" export "$work/from-published" "$work/republished"
    run python3 - "$work/published/config.json" "$work/republished/config.json" <<'PY'
import json, sys
first, again = (json.load(open(path)) for path in sys.argv[1:3])
assert first["vocab_size"] == again["vocab_size"] == again["gidd"]["base_ids"] + 1, (first, again)
assert again["gidd"]["pad"] == "eos"
PY
    start() {
        mpirun -np 2 "$bin/gidd-worker" --config "$work/config.yaml" "run.dir=$work/refused" "$@"
    }
    run python3 "$here/damage_model.py" "$work/model" "$work/missing" missing
    refuse 65 "tensor blocks.1.attn_qkv.weight is missing" start "model.init_from=$work/missing"
    refuse 78 "model.hidden_size: the model to start from has '32', not '64'" start "model.init_from=$work/model" model.hidden_size=64
    refuse 78 "model.pad: the model to start from has 'eos', not 'own'" start "model.init_from=$work/published"
    refuse 66 "nothing" start "model.init_from=$work/nothing"
    run "$bin/vectors_model" "$golden" "$work/other"
    refuse 65 "has a tokenizer of 95 ids" start "model.init_from=$work/other"
}

scenario_ema() { # the running average: in the checkpoint, through a resume, in the tools; off, there is nothing of it
    local ema=(optimizer.ema_decay=0.8 checkpoint.every_steps=4)
    prepare_training
    train plain
    train whole "${ema[@]}"
    run cmp -n "$(stat -c %s "$(last_state plain)")" "$(last_state plain)" "$(last_state whole)" # the average changes nothing
    [[ $(stat -c %s "$(last_state whole)") -gt $(stat -c %s "$(last_state plain)") ]] || die "no section for the average"
    # killed after its first checkpoint and started again; with the state in pieces and whole
    GIDD_FAULT=kill:rank=0,point=forward,step=6 mpirun -np 2 "$bin/gidd-worker" --config "$work/config.yaml" \
        "run.dir=$work/killed" "${ema[@]}" >"$work/log" 2>&1 && die "the fault did not strike"
    train killed "${ema[@]}"
    run cmp "$(last_state whole)" "$(last_state killed)"
    train pieces "${ema[@]}" comm.zero=on
    run cmp "$(last_state whole)" "$(last_state pieces)"
    # turned on for a run that had none
    refuse 78 "--allow-change optimizer.ema_decay" mpirun -np 2 "$bin/gidd-worker" --config "$work/config.yaml" \
        "run.dir=$work/plain" training.steps=10 optimizer.ema_decay=0.8 --allow-change training.steps
    run mpirun -np 2 "$bin/gidd-worker" --config "$work/config.yaml" "run.dir=$work/plain" training.steps=10 \
        optimizer.ema_decay=0.8 --allow-change training.steps,optimizer.ema_decay
    # the tools: the average is another model than the masters, and its export is the average
    run "$bin/gidd-checkpoint" export --ema "$work/whole" "$work/average"
    run "$bin/gidd-checkpoint" export "$work/whole" "$work/masters"
    "$bin/gidd-eval" --checkpoint "$work/whole" --ema >"$work/eval-ema" 2>"$work/log" || die "gidd-eval --ema: exit $?"
    for model in average masters; do
        "$bin/gidd-eval" --config "$work/config.yaml" --model "$work/$model" >"$work/eval-$model" 2>"$work/log" ||
            die "gidd-eval --model: exit $?"
    done
    same_eval "$work/eval-ema" "$work/eval-average"
    ! diff -q "$work/eval-average.numbers" <(grep -vF "$work" "$work/eval-masters") >/dev/null || die "--ema changes nothing"
    refuse 64 "no running average" "$bin/gidd-eval" --checkpoint "$work/masters" --ema
    rm -r "$work/killed" && train killed && refuse 64 "ema_decay was 0" "$bin/gidd-sample" --checkpoint "$work/killed" --ema
}

"scenario_$scenario"
printf 'ok %s\n' "$scenario"
