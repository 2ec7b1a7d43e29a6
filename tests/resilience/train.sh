#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# End-to-end training of a tiny model on real ranks: determinism, resuming, signals, other numbers of ranks.
# usage: train.sh SCENARIO BIN_DIR       SCENARIO: see the functions scenario_* below
set -euo pipefail
scenario=$1
bin=$2
# shellcheck source=tests/resilience/train_lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/train_lib.sh"

scenario_repeat() { # two equal runs are equal bytes; training does something
    train a 2
    [[ $rc -eq 0 ]] || die "exit $rc"
    train b 2
    [[ $rc -eq 0 ]] || die "exit $rc"
    same_run a b
    python3 - "$work/a/metrics.jsonl" <<'PY' || die "the loss did not fall"
import json, sys
loss = [json.loads(line)["loss"] for line in open(sys.argv[1]) if '"loss"' in line]
sys.exit(not loss[-1] < 0.9 * loss[0])
PY
    train a 2
    [[ $rc -eq 0 ]] || die "a finished run exits with $rc"
    same_run a b
}

scenario_source() { # without shards the coordinator makes them first; the run is the same. And MDLM, end to end
    train a 2
    [[ $rc -eq 0 ]] || die "exit $rc"
    rm -r "$work/shards"
    train b 2 "data.source=$here/../../src"
    [[ $rc -eq 0 ]] || die "from data.source: exit $rc"
    same_run a b
    train masks 2 diffusion.process=mdlm model.p_uniform=0
    [[ $rc -eq 0 ]] || die "mdlm: exit $rc"
    train all 2 diffusion.process=mdlm model.p_uniform=0 loss.skip_clean_rows=off
    [[ $rc -eq 0 ]] || die "mdlm, all rows: exit $rc"
    python3 - "$work/masks/metrics.jsonl" "$work/all/metrics.jsonl" <<'PY' || die "mdlm: leaving clean rows out changes the losses"
import json, sys
a, b = ([json.loads(line)["loss"] for line in open(path) if '"loss"' in line] for path in sys.argv[1:3])
sys.exit(not (a[-1] < 0.9 * a[0] and all(abs(x - y) <= 1e-5 * abs(x) for x, y in zip(a, b))))
PY
    grep -q '"elbo_noised"' "$work/masks/metrics.jsonl" || die "skipped rows, but elbo is not called elbo_noised"
    grep -q '"elbo"' "$work/masks/metrics.jsonl" && die "skipped rows, but there is an elbo"
    "$bin/gidd-eval" --checkpoint "$work/masks" --json >"$work/eval.json" 2>"$work/eval.log" || die "gidd-eval: exit $?"
    "$bin/gidd-sample" --checkpoint "$work/masks" --num 2 --steps 8 >"$work/sample.txt" 2>"$work/sample.log" ||
        die "gidd-sample: exit $?"
    mpirun -np 2 "$bin/gidd-sample" --checkpoint "$work/masks" --num 2 --steps 8 --batch 1 >"$work/sample2.txt" \
        2>>"$work/sample.log" || die "gidd-sample on 2 ranks: exit $?"
    cmp "$work/sample.txt" "$work/sample2.txt" >&2 || die "samples depend on the number of ranks"
}

# Words that training never sees: with a high learning rate they become so unlikely that clean rows matter.
shard_strangers() {
    local i
    mkdir -p "$work/texts"
    for i in $(seq 10 99); do
        if [[ $i -lt 92 ]]; then
            printf 'the cat sat on the mat and the cat ate the rat %d\n' $(seq 20)
        else
            printf 'QUICK JUMPS ZEBRA FOX %.0s' $(seq 40)
        fi >"$work/texts/$i.h"
    done
    "$bin/gidd-shard" --config "$work/config.yaml" --input "$work/texts" --output "$work/strangers" \
        >"$work/strangers.log" 2>&1 || die "gidd-shard: exit $?"
}

scenario_skip() { # clean rows are left out until an evaluation finds them to matter; so also when resumed at that point
    local -a strange=("data.dir=$work/strangers" model.p_uniform=0 optimizer.lr=0.03 eval.every_steps=4
        checkpoint.every_steps=8 checkpoint.keep_last=9)
    shard_strangers
    train whole 2 "${strange[@]}"
    [[ $rc -eq 0 ]] || die "exit $rc"
    grep -q '"step":8,"event":"skip_clean_rows","text":"off after step 9: clean rows have' "$work/whole/journal.jsonl" ||
        die "the guard did not end it after step 9"
    [[ $(grep -c 'warning: loss.skip_clean_rows' "$work/whole.log") -eq 1 ]] || die "not one warning"
    python3 - "$work/whole/metrics.jsonl" <<'PY' || die "elbo stands where rows were left out, or elbo_noised where not"
import json, sys
lines = [json.loads(line) for line in open(sys.argv[1])]
train = {line["step"]: line for line in lines if "loss" in line}
valid = {line["step"]: line for line in lines if "valid_loss" in line}
assert all(("elbo_noised" in line) == (step <= 9) and ("elbo" in line) == ("ppl" in line) == (step > 9)
           for step, line in train.items())
assert valid[4]["clean_loss_share"] < 1e-4 < valid[8]["clean_loss_share"] and valid[8]["min_log_px"] < -23
PY
    # resumed where the report is known, but the order that rests on it is not yet made: order 8 still leaves rows out
    cp -r "$work/whole" "$work/pending"
    find "$work/pending/checkpoints" -mindepth 1 -maxdepth 1 ! -name step-000000008 -exec rm -r {} +
    grep -q '"plan": *"skip_clean_rows_end=9"' "$work/pending/checkpoints/step-000000008/manifest.json" ||
        die "the checkpoint of step 8 does not know the decision"
    train pending 2 "${strange[@]}"
    [[ $rc -eq 0 ]] || die "resumed at step 8: exit $rc"
    same_run whole pending
    GIDD_FAULT=kill:rank=1,point=forward,step=20 train killed 2 "${strange[@]}"
    [[ $rc -eq 137 ]] || die "killed: exit $rc, not 137"
    until_finished killed 2 "${strange[@]}" training.recompute=block # changes memory and time, and no bit
    same_run whole killed
    train on 2 "${strange[@]}" loss.skip_clean_rows=on
    [[ $rc -eq 0 ]] || die "on: exit $rc"
    grep -q '"elbo"' "$work/on/metrics.jsonl" && die "on: was turned off"
    grep -q 'stays on, as configured' "$work/on/journal.jsonl" || die "on: nobody warns"
    train off 2 "${strange[@]}" loss.skip_clean_rows=off
    grep -q '"elbo_noised"' "$work/off/metrics.jsonl" && die "off: rows were left out"
    train refused 2 "${strange[@]}" model.p_uniform=0.1 loss.skip_clean_rows=on
    [[ $rc -eq 78 ]] || die "on with p_u > 0: exit $rc, not 78"
}

scenario_random() { # kill -9 of a random rank at five random moments of a longer run
    local victims kills=0 longer=(training.steps=1500 checkpoint.every_steps=20 eval.every_steps=200)
    train whole 2 "${longer[@]}"
    [[ $rc -eq 0 ]] || die "exit $rc"
    while [[ $kills -lt 5 ]]; do
        start shot 2 "${longer[@]}"
        sleep "0.$((RANDOM % 2))$((RANDOM % 10))"
        mapfile -t victims < <(ranks_of)
        [[ ${#victims[@]} -gt 0 ]] && kill -KILL "${victims[RANDOM % ${#victims[@]}]}" 2>/dev/null && kills=$((kills + 1))
        finish
        [[ $rc -ne 0 ]] || die "the run was over after $kills kills"
    done
    train shot 2 "${longer[@]}"
    [[ $rc -eq 0 ]] || die "the last start: exit $rc"
    same_run whole shot
    printf '%d kills at random moments, bit-exact\n' "$kills"
}

scenario_signal() { # USR1 to mpirun: 75, then the same bytes; INT to a rank and a STOP file: 79
    local pid step
    train whole 2
    for step in 1 2 3; do
        rc=0
        mpirun -np 2 "$bin/gidd-worker" --config "$work/config.yaml" "run.dir=$work/usr" >>"$work/usr.log" 2>&1 &
        pid=$!
        for _ in $(seq 500); do # until it trains: each start has its line in the journal
            [[ $(grep -c '"event":"\(start\|resume\)"' "$work/usr/journal.jsonl" 2>/dev/null) -ge $step ]] && break
            [[ -d /proc/$pid ]] || break
            sleep 0.01
        done
        kill -USR1 "$pid" 2>/dev/null || true
        wait "$pid" || rc=$?
        [[ $rc -eq 75 || $rc -eq 0 ]] || die "USR1: exit $rc, not 75"
        [[ $rc -eq 75 || $step -gt 1 ]] || die "the run was over before the signal"
        [[ $rc -eq 0 ]] && break
    done
    until_finished usr 2
    same_run whole usr
    mkdir -p "$work/stop" && touch "$work/stop/STOP"
    train stop 2
    [[ $rc -eq 79 ]] || die "STOP file: exit $rc, not 79"
    [[ ! -e "$work/stop/STOP" ]] || die "the STOP file was not used up"
    until_finished stop 2
    same_run whole stop
}

scenario_ranks() { # np = 1, 2, 4, another micro-batch, a dedicated coordinator
    local n
    for n in 1 2 4; do
        train "np$n" "$n"
        [[ $rc -eq 0 ]] || die "np=$n: exit $rc"
        printf 'np=%s against np=1: largest relative difference of losses %s\n' "$n" "$(loss_difference np1 "np$n")" ||
            die "np=$n differs by more than 1e-5"
    done
    train micro 2 training.micro_batch=6
    printf 'micro-batch 6: %s\n' "$(loss_difference np2 micro)" || die "micro-batch 6 differs by more than 1e-5"
    rc=0
    mpirun -np 1 "$bin/gidd-coordinator" --config "$work/config.yaml" "run.dir=$work/dedicated" : \
        -np 2 "$bin/gidd-worker" --config "$work/config.yaml" "run.dir=$work/dedicated" >"$work/dedicated.log" 2>&1 || rc=$?
    [[ $rc -eq 0 ]] || die "dedicated coordinator: exit $rc"
    same_run np2 dedicated
    # begun on 2 ranks, continued on 3, finished on 1
    GIDD_FAULT=kill:rank=0,point=forward,step=12 train moved 2
    [[ $rc -eq 137 ]] || die "exit $rc"
    GIDD_FAULT=kill:rank=2,point=forward,step=17 train moved 3
    [[ $rc -eq 137 ]] || die "exit $rc"
    train moved 1
    [[ $rc -eq 0 ]] || die "moved to 1 rank: exit $rc"
    printf 'moved 2 -> 3 -> 1 ranks: %s\n' "$(loss_difference np1 moved)" || die "moving differs by more than 1e-5"
}

scenario_zero() { # ZeRO-1 on or off: the same bytes on 1, 2 and 3 ranks, across a change of it, and in bf16
    local n
    for n in 1 2 3; do
        train "off$n" "$n" comm.zero=off
        [[ $rc -eq 0 ]] || die "np=$n, off: exit $rc"
        train "on$n" "$n" comm.zero=on
        [[ $rc -eq 0 ]] || die "np=$n, on: exit $rc"
        same_run "off$n" "on$n"
    done
    GIDD_FAULT=kill:rank=0,point=forward,step=8 train mixed 3 comm.zero=on
    [[ $rc -eq 137 ]] || die "exit $rc"
    GIDD_FAULT=kill:rank=2,point=forward,step=17 train mixed 3 comm.zero=off
    [[ $rc -eq 137 ]] || die "exit $rc"
    train mixed 3 comm.zero=on
    [[ $rc -eq 0 ]] || die "on, off, on: exit $rc"
    same_run off3 mixed
    train half0 2 training.precision=bf16 training.steps=10 comm.zero=off
    [[ $rc -eq 0 ]] || die "bf16, off: exit $rc"
    train half1 2 training.precision=bf16 training.steps=10 comm.zero=on
    [[ $rc -eq 0 ]] || die "bf16, on: exit $rc"
    same_run half0 half1
    GIDD_FAULT=nan:rank=1,point=gradient,step=6 train nan 2 comm.zero=on
    [[ $rc -eq 0 ]] || die "one NaN: exit $rc"
    grep -q '"skipped":1' "$work/nan/metrics.jsonl" || die "the skipped step is not counted"
    on=$("$bin/gidd-worker" --dry-run --config "$work/config.yaml" training.precision=bf16 comm.zero=on --ranks 3)
    off=$("$bin/gidd-worker" --dry-run --config "$work/config.yaml" training.precision=bf16 comm.zero=off --ranks 3)
    [[ $on != "$off" ]] || die "--dry-run does not show what ZeRO-1 saves"
}

scenario_graphs() { # recorded segments or launch by launch: the same bytes, with listed rows, ZeRO-1, and after a kill
    train plain 2 device.graphs=off
    [[ $rc -eq 0 ]] || die "plain: exit $rc"
    GIDD_FAULT=kill:rank=1,point=backward,step=13 train recorded 2 device.graphs=on comm.zero=on
    [[ $rc -eq 137 ]] || die "exit $rc"
    train recorded 2 device.graphs=on comm.zero=on
    [[ $rc -eq 0 ]] || die "recorded: exit $rc"
    same_run plain recorded
    train masks0 2 diffusion.process=mdlm model.p_uniform=0 training.steps=10 training.micro_batch=4 device.graphs=off
    [[ $rc -eq 0 ]] || die "listed rows: exit $rc"
    train masks1 2 diffusion.process=mdlm model.p_uniform=0 training.steps=10 training.micro_batch=4 device.graphs=on
    [[ $rc -eq 0 ]] || die "listed rows, recorded: exit $rc"
    same_run masks0 masks1
}

scenario_emu() { # the CUDA kernels, on the host, train as the CPU's do
    local kind
    for kind in cpu emu; do
        train "$kind" 2 training.steps=6 log.every_steps=1 eval.every_steps=6 device.kind=$kind
        [[ $rc -eq 0 ]] || die "$kind: exit $rc"
    done
    printf 'emu against cpu, 6 steps: %s\n' "$(loss_difference cpu emu)" || die "emu differs by more than 1e-5"
}

scenario_nan() { # a non-finite gradient skips the update on all ranks; too many end the run with 65
    GIDD_FAULT=nan:rank=1,point=gradient,step=6 train one 2
    [[ $rc -eq 0 ]] || die "one NaN: exit $rc"
    grep -q '"skipped":1' "$work/one/metrics.jsonl" || die "the skipped step is not counted"
    grep -q 'nan\|null' "$work/one/metrics.jsonl" && die "a NaN got into the metrics"
    GIDD_FAULT=nan:rank=0,point=gradient train many 2 training.max_skipped_steps=0
    [[ $rc -eq 65 ]] || die "diverged: exit $rc, not 65"
}

scenario_refuse() { # what must not be accepted, with its exit code
    local expected
    train base 2
    [[ $rc -eq 0 ]] || die "exit $rc"
    refuse() {
        expected=$1
        shift
        train base "$@"
        [[ $rc -eq $expected ]] || die "$*: exit $rc, not $expected"
    }
    refuse 78 2 run.seed=8
    refuse 78 2 optimizer.lr=1
    refuse 78 5
    refuse 78 2 model.heads=5
    refuse 78 2 training.stpes=5
    refuse 66 2 "data.dir=$work/nothing"
    refuse 69 2 device.kind=abacus
    refuse 78 2 comm.backend=nccl device.kind=cpu
    mpirun -np 2 "$bin/gidd-worker" --config "$work/config.yaml" "run.dir=$work/base" training.steps=30 \
        --allow-change training.steps >>"$work/base.log" 2>&1 || die "an allowed change was refused"
    cp -r "$work/shards" "$work/damaged"
    printf 'x' | dd of="$work/damaged/$(basename "$(printf '%s\n' "$work"/damaged/shard-*.h5 | head -n 1)")" bs=1 seek=20000 conv=notrunc 2>/dev/null
    train hurt 2 "data.dir=$work/damaged"
    [[ $rc -eq 65 ]] || die "a damaged shard: exit $rc, not 65"
    (cd "$work" && env -u GIDD_CONFIG mpirun -np 2 "$bin/gidd-worker" >"$work/none.log" 2>&1) && die "no configuration was accepted"
    grep -q 'quickstart.sh' "$work/none.log" || die "nobody says what to do without a configuration"
}

shard
"scenario_$scenario"
printf 'ok %s\n' "$scenario"
