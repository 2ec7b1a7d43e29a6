#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# slurm.sh SCENARIO ROOT BIN_DIR: training jobs under a real Slurm, submitted with the shipped scripts.
#   preempt   a job of higher priority takes the node: the run saves, is requeued, resumes, ends in the bits of a run
#             that was left alone
#   rules     a killed rank is requeued, under srun; a STOP file is not; a job that gets nowhere gives up; a chain of jobs
# Exit code 77, with the reason, where Slurm cannot be started.
set -euo pipefail
scenario=$1
root=$(realpath "$2")
bin=$(realpath "$3")
# shellcheck source=tests/hpc/slurm_cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/slurm_cluster.sh"
missing=$(slurm_missing)
if [[ -n $missing ]]; then
    printf 'Slurm cannot be started here, missing: %s\n' "$missing"
    exit 77
fi
# shellcheck source=tests/resilience/train_lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../resilience/train_lib.sh"
trap 'slurm_down "$work/slurm"; rm -rf "$work"' EXIT

# submit NAME SCRIPT [overrides of the environment]: sets $job. Options on sbatch's command line win over the script's.
submit() {
    local name=$1 script=$2
    shift 2
    job=$(cd "$root" && env "GIDD_RUN_DIR=$work/$name" "GIDD_BIN=$bin" "GIDD_CONFIG=$work/config.yaml" OMP_NUM_THREADS=1 \
        "$@" sbatch --parsable -p low --nodes=1 --ntasks-per-node=2 --cpus-per-task=1 --gpus-per-node=0 --time=10 \
        --signal=B:USR1@60 -o "$work/$name.log" "hpc/slurm/$script.sbatch") || die "sbatch refuses $script"
}

job_field() {
    scontrol show job "$1" | sed -nE "s/.*\\b$2=([^ ]*).*/\\1/p" | head -n 1
}

# await WHAT COMMAND...: until the command succeeds, half a minute at most.
await() {
    local what=$1
    shift
    for _ in $(seq 600); do
        ! "$@" 2>/dev/null || return 0
        sleep 0.05
    done
    squeue >&2
    die "waited in vain for: $what"
}

is_state() {
    [[ $(job_field "$1" JobState) = "$2" ]]
}

trains() {
    [[ $(grep -c '"step":' "$work/$1/metrics.jsonl") -ge ${2:-1} ]]
}

node_is_idle() {
    [[ $(sinfo -h -p low -t idle -o %D) = 1 ]]
}

# Slurm holds a requeued job for two minutes; the test does not wait for them, but for the old start to be gone.
run_again() {
    await "job $1 to be requeued" is_requeued "$1"
    await "the node to be idle" node_is_idle
    scontrol update "JobId=$1" StartTime=now
}

is_requeued() {
    is_state "$1" PENDING && [[ $(job_field "$1" Restarts) -ge 1 ]]
}

scenario_preempt() {
    local high
    train whole 2
    [[ $rc -eq 0 ]] || die "the run that is left alone: exit $rc"
    submit low gidd-small GIDD_FAULT=slow:rank=0,point=forward
    await "the first lines of metrics" trains low 2
    high=$(sbatch --parsable -p high --nodes=1 --ntasks-per-node=2 --time=1 -o "$work/high.log" --wrap 'echo high runs; sleep 0.2')
    await "the preempting job to end" is_state "$high" COMPLETED
    run_again "$job"
    await "the run to be finished" is_state "$job" COMPLETED
    [[ $(job_field "$job" Restarts) = 1 ]] || die "restarted $(job_field "$job" Restarts) times"
    grep -q 'USR1 to the launcher' "$work/low.log" || die "the script forwarded no signal"
    grep -q '"event":"stop","text":"a signal asked to leave"' "$work/low/journal.jsonl" || die "the run did not save on the signal"
    grep -q '"event":"resume"' "$work/low/journal.jsonl" || die "the run did not resume"
    same_run whole low
    printf 'preempted, requeued, resumed: state.bin and metrics.jsonl are those of the run that was left alone\n'
}

scenario_rules() {
    local rank
    train whole 2
    # under srun, where there is PMIx: a rank dies
    submit lost gidd-multinode GIDD_FAULT=slow:rank=0,point=forward
    await "the first lines of metrics" trains lost 2
    grep -q 'srun --mpi=pmix' "$work/lost.log" || printf 'no PMIx here: mpirun instead of srun\n'
    rank=$(pgrep -x gidd-worker | while read -r pid; do
        ! tr '\0' ' ' <"/proc/$pid/cmdline" | grep -qF "run.dir=$work/lost" || printf '%s\n' "$pid"
    done | tail -n 1)
    kill -KILL "$rank"
    run_again "$job"
    await "the run to be finished" is_state "$job" COMPLETED
    same_run whole lost
    # stopped on request: final
    submit stop gidd-small GIDD_FAULT=slow:rank=0,point=forward
    await "the first lines of metrics" trains stop
    touch "$work/stop/STOP"
    await "the job to end" is_state "$job" FAILED
    [[ $(job_field "$job" ExitCode) = 79:0 ]] || die "STOP: exit code $(job_field "$job" ExitCode)"
    # three starts that get nowhere
    submit stuck gidd-small GIDD_FAULT=kill:rank=1,point=forward,step=2
    run_again "$job"
    await "the second start" grep -q 'start 2 from checkpoint none' "$work/stuck.log"
    run_again "$job"
    await "the job to give up" grep -q '3 starts in a row and no checkpoint after none: giving up' "$work/stuck.log"
    await "the job to end" is_state "$job" FAILED
    # a chain: each job submits the next
    submit chain gidd-chain GIDD_FAULT=slow:rank=0,point=forward
    await "the first lines of metrics" trains chain
    scancel --batch --signal=USR1 "$job"
    await "the first job of the chain to end" is_state "$job" FAILED
    [[ $(job_field "$job" ExitCode) = 75:0 ]] || die "chain: exit code $(job_field "$job" ExitCode)"
    grep -q 'submitting the next job' "$work/chain.log" || die "the chain was not continued"
    printf 'a killed rank is requeued and bit-exact; STOP is final; three starts are the limit; a chain goes on\n'
}

slurm_up "$work/slurm" 2 || die "Slurm does not start"
shard
"scenario_$scenario"
printf 'ok %s\n' "$scenario"
