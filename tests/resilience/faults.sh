#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# What goes wrong while a run is alive: signals, deadlines, slow and stopped ranks, numbers that are none, loss
# spikes, copies that differ, two starts on one folder, clocks that jump, programs that do not fit each other.
# usage: faults.sh SCENARIO BIN_DIR [all]       SCENARIO: see the functions scenario_* below; all: every case of it
set -euo pipefail
scenario=$1
bin=$2
every=${3:-some}
# shellcheck source=tests/resilience/train_lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/train_lib.sh"

endings=0
expect() {
    [[ $rc -eq $1 ]] || die "$2: exit $rc, not $1"
    endings=$((endings + 1))
}

logged() {
    grep -qE -- "$2" "$work/$1.log" || die "$1.log does not say: $2"
}

# Checkpoints of a run hold finite numbers only, and verify.
sound_checkpoints() {
    local path
    for path in "$work/$1"/checkpoints/step-?????????; do
        "$bin/gidd-checkpoint" verify "$path" >/dev/null || die "$path does not verify"
        python3 - "$path/state.bin" <<'PY' || die "$path holds numbers that are not finite"
import array, sys
data = array.array("f", open(sys.argv[1], "rb").read())
sys.exit(any(x != x or x in (float("inf"), float("-inf")) for x in data))
PY
    done
}


scenario_signals() { # each signal to all ranks, to one, to mpirun; twice: 75 within two steps, then the same bytes
    local signal target number=0
    train whole 2
    expect 0 whole
    for signal in USR1 USR2 TERM; do
        for target in all one mpirun; do
            [[ $signal-$target != TERM-mpirun ]] || continue # Open MPI kills the ranks then: hpc/lib/run-job.sh
            [[ $every = all || USR1-one,USR2-mpirun,TERM-all, == *$signal-$target,* ]] || continue
            number=$((number + 1))
            GIDD_FAULT=slow:rank=0,point=forward start "s$number" 2
            case $target in
                all) mapfile -t targets < <(ranks_of) ;;
                one) mapfile -t targets < <(ranks_of | tail -n 1) ;;
                mpirun) targets=("$pid") ;;
            esac
            kill "-$signal" "${targets[@]}"
            sleep 0.15
            kill "-$signal" "${targets[@]}" 2>/dev/null || true
            finish
            expect 75 "$signal to $target"
            until_finished "s$number" 2
            same_run whole "s$number"
        done
    done
}

scenario_deadlines() { # minutes, the job's end, a STOP file: the right code, in time, then the same bytes
    local end
    train whole 2
    GIDD_FAULT=slow:rank=0,point=forward train minutes 2 run.max_minutes=0.02
    expect 75 run.max_minutes
    until_finished minutes 2
    same_run whole minutes
    # what is left must cover two steps, a checkpoint and ten seconds
    end=$(($(date +%s) + 12))
    GIDD_FAULT=slow:rank=0,point=forward train end 2 "run.end_time=$end"
    expect 75 run.end_time
    [[ $(date +%s) -lt $end ]] || die "run.end_time: left after the end"
    until_finished end 2
    same_run whole end
    GIDD_FAULT=slow:rank=0,point=forward start stop 2
    touch "$work/stop/STOP"
    finish
    expect 79 "STOP file"
    until_finished stop 2
    same_run whole stop
}

scenario_stopped() { # SIGSTOP and sleep of one rank: every other rank says where it stands, 76 within the limit
    local began kind
    for kind in $([[ $every = all ]] && printf 'sleep ') stop; do
        began=$SECONDS
        GIDD_FAULT=$kind:rank=1,point=forward,step=6 train "$kind" 3 run.step_limit_s=2
        expect 76 "$kind"
        [[ $((SECONDS - began)) -lt 30 ]] || die "$kind: ended after $((SECONDS - began)) s"
        logged "$kind" "r0 .*watchdog: error: nothing moved for [0-9]+ s: last point '[a-z -]+', step [0-9]+, collective [0-9]+"
        logged "$kind" 'r2 .*watchdog: error: nothing moved'
    done
    [[ $every != all ]] || logged sleep 'r1 .*watchdog: error: nothing moved'
    grep -q 'r1 .*watchdog: error: nothing' "$work/stop.log" && die "a stopped rank spoke"
    GIDD_FAULT=sleep:rank=1,point=restore train silent 2 run.startup_limit_s=2
    expect 76 "a rank that is silent at the start"
    logged silent "watchdog: error: nothing moved"
    train whole 3
    until_finished stop 3
    same_run whole stop
}

scenario_slow() { # a slow rank is named within two log intervals; the bytes do not care
    train whole 3
    GIDD_FAULT=slow:rank=2,point=forward train slow 3
    expect 0 slow
    logged slow 'straggler: warning: step [36]: rank 2 is slow'
    grep -q '"event":"straggler"' "$work/slow/journal.jsonl" || die "the journal does not name the slow rank"
    same_run whole slow
}

# spiky RUN FAULT POLICY [overrides...]: a run whose step 14 has a bad loss.
spiky() {
    local run=$1 fault=$2 policy=$3
    shift 3
    GIDD_FAULT=$fault train "$run" 2 "training.spike_policy=$policy" training.spike_window=6 "$@"
}

scenario_spikes() { # NaN and spikes of the loss under each policy; all ranks alike; the same bytes after a kill
    local bad
    for bad in nan:rank=1,point=loss,step=14 flip:rank=0,point=loss,step=14; do
        local name=${bad%%:*}
        [[ $every = all || $name = nan ]] || continue
        spiky "skip-$name" "$bad" skip
        expect 0 "skip $name"
        grep -q '"event":"spike".*seed 7, samples 168 to 179: left out' "$work/skip-$name/journal.jsonl" ||
            die "skip $name: the journal does not tell the batch"
        grep -q '"skipped":1' "$work/skip-$name/metrics.jsonl" || die "skip $name: not counted"
        sound_checkpoints "skip-$name"
        spiky "stop-$name" "$bad" stop
        expect 65 "stop $name"
        [[ ! -e $work/stop-$name/checkpoints/step-000000015 ]] || die "stop $name: the state after the bad step was saved"
        spiky "back-$name" "$bad" rollback
        expect 76 "rollback $name"
        grep -qx 14 "$work/back-$name/left_out.txt" || die "rollback $name: the step is not listed"
        spiky "back-$name" '' rollback
        expect 0 "rollback $name, second start"
        logged "back-$name" 'resuming .* at step (5|10) of 24'
        # leaving the step out at once or after going back is the same computation
        cmp "$work/skip-$name/checkpoints/step-000000024/state.bin" "$work/back-$name/checkpoints/step-000000024/state.bin" >&2 ||
            die "rollback and skip of $name end in different states"
    done
    spiky skip-flip flip:rank=0,point=loss,step=14 skip
    expect 0 "skip flip"
    cmp "$work/skip-nan/checkpoints/step-000000024/state.bin" "$work/skip-flip/checkpoints/step-000000024/state.bin" >&2 ||
        die "the left-out step leaves a trace"
    spiky plain '' off
    spiky calm '' skip
    cmp "$work/plain/checkpoints/step-000000024/state.bin" "$work/calm/checkpoints/step-000000024/state.bin" >&2 ||
        die "looking for spikes changes the run"
    spiky shot kill:rank=1,point=backward,step=17 skip
    expect 137 "kill"
    spiky shot '' skip
    expect 0 "after the kill"
    same_run calm shot
    spiky off-nan nan:rank=1,point=loss,step=14 off
    expect 0 "a NaN loss without a policy"
    logged off-nan 'non-finite: warning: step 14'
}

scenario_poison() { # a NaN among the parameters ends the run, at the limit or with the last step, and is in no checkpoint
    local limit
    train whole 2
    for limit in 8 100; do
        GIDD_FAULT=nan:rank=0,point=parameter,step=9 train "poison$limit" 2 training.max_skipped_steps=$limit comm.check_replicas_every=0
        expect 65 "NaN parameter"
        # a slow disk may have left no time for a save in between, but the last step's is always tried
        [[ $limit -eq 8 ]] || logged "poison$limit" 'not finite: it is not saved'
        sound_checkpoints "poison$limit"
        [[ -d $work/poison$limit/checkpoints/step-000000005 ]] || die "the sound checkpoint is gone"
        until_finished "poison$limit" 2
        same_run whole "poison$limit"
    done
}

scenario_replicas() { # one flipped bit of one rank's weights is found by the next comparison, with step and rank
    GIDD_FAULT=flip:rank=1,point=weight,step=7 train flipped 3 comm.check_replicas_every=4
    expect 65 "a flipped bit"
    logged flipped "after step 8 the ranks' copies of .* differ \\(worker 1\\)"
    train whole 2
    train checked 2 comm.check_replicas_every=1
    expect 0 "comparisons"
    same_run whole checked
}

lock_of() { # HOST JOB RESTARTS: somebody's lock in $work/$run
    mkdir -p "$work/$run"
    printf '{"boot_id":"b","host":"%s","job_id":"%s","pid":1,"pid_namespace":"p","pid_start":1,"restart_count":%d,"token":"%032d"}' \
        "$1" "$2" "$3" 5 >"$work/$run/run.lock"
}

scenario_twice() { # two starts on one folder: here, elsewhere, stale, requeued
    local run=same first
    train whole 2
    GIDD_FAULT=slow:rank=0,point=forward start same 2
    first=$pid
    cp "$work/same/config.yaml" "$work/config.before"
    train same 2 log.level=warn
    expect 73 "a second start"
    logged same "same is in use by process [0-9]+ on $(hostname)"
    cmp "$work/config.before" "$work/same/config.yaml" >&2 || die "the refused start changed the folder"
    pid=$first
    finish
    expect 0 "the first start"
    same_run whole same
    run=far
    lock_of elsewhere '' 0
    train far 2
    expect 73 "another host holds the lock"
    logged far 'far is in use by process 1 on elsewhere'
    touch -d '-70 seconds' "$work/far/run.lock"
    train far 2
    expect 0 "a lock that was silent for 70 s"
    same_run whole far
    run=again
    lock_of elsewhere 7 0
    SLURM_JOB_ID=7 SLURM_RESTART_COUNT=1 train again 2
    expect 0 "the lock of an earlier start of this job"
    run=other
    lock_of elsewhere 8 0
    SLURM_JOB_ID=7 SLURM_RESTART_COUNT=1 train other 2
    expect 73 "the lock of another job"
    train other 2 log.tensorboard=off
    expect 73 "without a job"
    rc=0
    mpirun -np 2 "$bin/gidd-worker" --steal-lock --config "$work/config.yaml" "run.dir=$work/other" >>"$work/other.log" 2>&1 || rc=$?
    expect 0 "--steal-lock"
}

scenario_clocks() { # the wall clock jumps by a day, back and forth, and every rank has a time zone of its own
    local shim=$bin/libclock_jump.so
    train whole 2
    rc=0
    mpirun -np 1 -x "LD_PRELOAD=$shim" -x TZ=Pacific/Kiritimati "$bin/gidd-worker" --config "$work/config.yaml" "run.dir=$work/jump" \
        checkpoint.every_minutes=5 run.max_minutes=30 : \
        -np 1 -x "LD_PRELOAD=$shim" -x CLOCK_JUMP_BACK=1 -x TZ=Pacific/Pago_Pago "$bin/gidd-worker" --config "$work/config.yaml" \
        "run.dir=$work/jump" checkpoint.every_minutes=5 run.max_minutes=30 >"$work/jump.log" 2>&1 || rc=$?
    expect 0 "jumping clocks"
    grep -q 'clock jumps' "$work/jump.log" || die "the clock did not jump"
    same_run whole jump
}

scenario_mismatch() { # ranks of different builds or configurations are told apart before anything is touched
    rc=0
    mpirun -np 1 "$bin/gidd-worker" --config "$work/config.yaml" "run.dir=$work/mix" : \
        -np 1 "$bin/gidd-worker" --config "$work/config.yaml" "run.dir=$work/mix" optimizer.lr=1e-3 >"$work/mix.log" 2>&1 || rc=$?
    expect 78 "two configurations"
    logged mix 'rank 1: the configuration read here differs'
    GIDD_FAULT=flip:rank=1,point=build_id train mix 2
    expect 64 "two builds"
    logged mix "rank 1: this program is build [^ ]*, the coordinator's is [0-9a-f]{12}: install one build everywhere"
    [[ ! -e $work/mix ]] || die "the run folder was made all the same"
    train odd 5
    expect 78 "5 ranks share 12 sequences"
    logged odd 'allowed numbers of ranks: 1, 2, 3, 4, 6, 12'
}

scenario_node() { # two of four ranks die with their scratch folder; two ranks go on with the same global batch
    local victims
    train whole 4
    GIDD_FAULT=slow:rank=0,point=forward start lost 4
    mkdir -p "$work/scratch"
    sleep 0.8
    mapfile -t victims < <(ranks_of | tail -n 2)
    kill -KILL "${victims[@]}"
    rm -rf "$work/scratch"
    finish
    [[ $rc -eq 137 || $rc -eq 76 ]] || die "two dead ranks: exit $rc"
    train lost 2
    expect 0 "on two ranks"
    printf 'lost a node, 4 -> 2 ranks: largest relative difference of losses %s\n' "$(loss_difference whole lost)" ||
        die "the losses differ by more than 1e-5"
}

scenario_moves() { # begun on 2 ranks, then 1, 3, 4 and other micro-batches: the same samples, losses within 1e-5
    local ranks micro step
    train whole 2
    step=5
    for ranks in 1:6 3:2 4:1 2:3; do
        micro=${ranks#*:}
        step=$((step + 5))
        GIDD_FAULT=kill:rank=0,point=forward,step=$((step + 1)) train moved "${ranks%:*}" "training.micro_batch=$micro"
        [[ $rc -eq 137 || $rc -eq 0 ]] || die "$ranks: exit $rc"
    done
    until_finished moved 3
    printf 'moved 1, 3, 4, 2, 3 ranks: largest relative difference of losses %s\n' "$(loss_difference whole moved)" ||
        die "moving differs by more than 1e-5"
    diff <(grep -o '"tokens":[0-9]*' "$work/whole/metrics.jsonl") <(grep -o '"tokens":[0-9]*' "$work/moved/metrics.jsonl") >&2 ||
        die "other samples were used"
}

scenario_classes() { # every configuration key: identity refused, semantic only if allowed, free accepted
    local key class value kinds="" count=0
    train base 1 training.steps=4 checkpoint.every_steps=2 eval.every_steps=0 optimizer.warmup_steps=0
    expect 0 base
    while read -r key class value; do
        count=$((count + 1))
        rc=0
        cp -r "$work/base" "$work/key"
        local words=(--config "$work/base/config.yaml" "run.dir=$work/key" "$key=$value")
        [[ $key != run.dir ]] || words=(--config "$work/base/config.yaml" "run.dir=$work/key")
        "$bin/gidd-worker" "${words[@]}" >>"$work/key.log" 2>&1 || rc=$?
        case $class in
            identity) expect 78 "$key (identity)" && logged key "$key: " ;; # with both values
            semantic)
                expect 78 "$key (semantic)" && logged key "add --allow-change $key"
                rc=0
                "$bin/gidd-worker" "${words[@]}" --allow-change "$key" >>"$work/key.log" 2>&1 || rc=$?
                expect 0 "$key, allowed"
                ;;
            free) [[ $rc -ne 78 ]] || die "$key (free): exit 78" ;;
        esac
        kinds+="$class "
        rm -rf "$work/key"
    done < <(ARGP_HELP_FMT=rmargin=400 "$bin/gidd-worker" --help | python3 "$here/other_values.py" "$work/base/config.yaml")
    [[ $count -gt 60 ]] || die "only $count keys were found"
    for class in identity semantic free; do
        printf '%s %d, ' "$class" "$(grep -o "$class" <<<"$kinds" | wc -l)"
    done
    printf '%d keys\n' "$count"
}

scenario_soak() { # a kill or signal every few seconds for SOAK_SECONDS (default 120); then the uninterrupted run's bytes
    local until kills=0 victims longer=(training.steps=6000 checkpoint.every_steps=5 eval.every_steps=500)
    train whole 2 "${longer[@]}"
    expect 0 whole
    until=$((SECONDS + ${SOAK_SECONDS:-120}))
    while [[ $SECONDS -lt $until ]]; do
        GIDD_FAULT=slow:rank=0,point=forward start soak 2 "${longer[@]}" # so slow that it is never over by itself
        sleep "$((RANDOM % 4)).$((RANDOM % 10))"
        mapfile -t victims < <(ranks_of)
        [[ ${#victims[@]} -gt 0 ]] || die "the run is over after $kills interruptions"
        case $((RANDOM % 3)) in
            0) kill -KILL "${victims[RANDOM % ${#victims[@]}]}" ;;
            1) kill -KILL "${victims[@]}" ;;
            2) kill -USR1 "$pid" ;;
        esac
        kills=$((kills + 1))
        finish
        [[ $rc -ne 0 ]] || die "the run is over after $kills interruptions"
    done
    train soak 2 "${longer[@]}"
    expect 0 "the last start"
    same_run whole soak
    printf '%d interruptions, bit-exact\n' "$kills"
}

shard
"scenario_$scenario"
printf '%s: %d starts ended with the code that they owe, %d runs bit-exact\n' "$scenario" "$endings" "$exact"
