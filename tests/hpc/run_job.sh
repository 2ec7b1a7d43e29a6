#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# run_job.sh ROOT: hpc/lib/run-job.sh against a launcher that ends as it is told. The launcher takes its next exit
# code from the file `codes`, writes its words to `calls`, and makes a checkpoint when the code is followed by "+".
set -uo pipefail

run_job=$(realpath "$1/hpc/lib/run-job.sh")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
mkdir bin
export PATH="$folder/bin:$PATH" GIDD_RERUN_PAUSE=0
unset SLURM_JOB_ID PBS_JOBID GIDD_END_TIME
failures=0

cat >bin/launch <<'FAKE'
#!/usr/bin/env bash
printf '%s\n' "$*" >>calls
sed -n 's/^SigBlk:[[:space:]]*/blocked /p' /proc/self/status >>calls
read -r code <codes
sed -i 1d codes
if [[ "$code" = wait* ]]; then # ends when USR1 comes, with the code after the colon
    caught=no
    trap 'caught=yes' USR1
    : >ready
    for _ in $(seq 100); do
        sleep 0.05
        [[ "$caught" = no ]] || break
    done
    printf 'usr1 %s\n' "$caught" >>calls
    code=${code#wait:}
fi
if [[ "$code" = *+ ]]; then
    count=$(find run/checkpoints -name manifest.json 2>/dev/null | wc -l)
    mkdir -p "run/checkpoints/step-00000000$((count + 1))"
    : >"run/checkpoints/step-00000000$((count + 1))/manifest.json"
fi
exit "${code%+}"
FAKE
printf '#!/usr/bin/env bash\nprintf "scontrol %%s\\n" "$*" >>calls\n' >bin/scontrol
printf '#!/usr/bin/env bash\nprintf "2026-01-02T03:04:05\\n"\n' >bin/squeue
chmod +x bin/*

# plan CODE...: a fresh run folder and what the next launches will do.
plan() {
    rm -rf run calls ready
    : >calls
    printf '%s\n' "$@" >codes
}

# expect NAME WANTED_CODE WANTED_STARTS: of the run-job that has just ended with $code.
expect() {
    local starts
    starts=$(grep -c 'run\.dir=' calls)
    if [[ "$code" -ne "$2" || "$starts" -ne "$3" ]]; then
        printf '%s: exit code %d instead of %d, %d starts instead of %d\n' "$1" "$code" "$2" "$starts" "$3"
        sed 's/^/    /' log calls
        failures=$((failures + 1))
    fi
}

expect_call() {
    if ! grep -qF -- "$2" calls; then
        printf '%s: no "%s" among the calls\n' "$1" "$2"
        sed 's/^/    /' log calls
        failures=$((failures + 1))
    fi
}

expect_no_call() {
    if grep -qF -- "$2" calls; then
        printf '%s: "%s" was called\n' "$1" "$2"
        failures=$((failures + 1))
    fi
}

job() {
    timeout 20 bash "$run_job" --run-dir run "$@" -- launch worker --config c.yaml >log 2>&1
    code=$?
}

# signalled SIGNAL OPTIONS...: the same, with a signal once the launcher is ready.
signalled() {
    local signal=$1 job_pid
    shift
    bash "$run_job" --run-dir run "$@" -- launch worker >log 2>&1 &
    job_pid=$!
    for _ in $(seq 100); do
        [[ ! -e ready ]] || break
        sleep 0.05
    done
    kill "-$signal" "$job_pid"
    code=0
    wait "$job_pid" || code=$?
}

plan 0
job
expect "finished" 0 1
expect_call "finished" "worker --config c.yaml run.dir=run"

if env --block-signal=TERM true 2>/dev/null && ! grep -qE 'blocked [0-9a-f]*[4-7c-f][0-9a-f]{3}$' calls; then
    printf 'TERM would reach the launcher, which then kills its ranks: %s\n' "$(grep blocked calls)"
    failures=$((failures + 1))
fi

plan 75+ 75+ 0
job
expect "two reruns with progress" 0 3

plan 75+ 75 76 137 0
job
expect "three starts without a new checkpoint end it" 137 4

for final in 79 64 65 66 69 70 73 74 78 1 2 143; do
    plan "$final" 0
    job
    expect "exit code $final is final" "$final" 1
done

export SLURM_JOB_ID=42
for again in 75 76 134 137 139 205; do
    plan "$again"
    job --scheduler slurm
    expect "exit code $again is requeued" 75 1
    expect_call "exit code $again is requeued" "scontrol requeue 42"
done
expect_call "the end of the job is passed on" "run.end_time=$(date -d 2026-01-02T03:04:05 +%s)"

plan 79
job --scheduler slurm
expect "a stop is not requeued" 79 1
expect_no_call "a stop is not requeued" scontrol

for signal in USR1 TERM; do
    plan wait:75+
    signalled "$signal" --scheduler slurm
    expect "$signal while it runs" 75 1
    expect_call "$signal while it runs" "usr1 yes"
    expect_call "$signal while it runs" "scontrol requeue 42"
done

plan wait:1
signalled TERM --scheduler slurm
expect "1 after a forwarded signal is requeued" 75 1
expect_call "1 after a forwarded signal is requeued" "scontrol requeue 42"

plan wait:79
signalled USR1 --scheduler slurm
expect "79 after a forwarded signal is final" 79 1

# the count of starts lives in the run folder: each start is a job of its own here
plan 75 75 75
job --scheduler slurm
job --scheduler slurm
expect_call "second start" "scontrol requeue 42"
: >calls
job --scheduler slurm
expect "the third start without progress is the last" 75 1
expect_no_call "the third start without progress is the last" scontrol
unset SLURM_JOB_ID

plan 75
mkdir -p run/checkpoints/step-000000005 run/checkpoints/step-000000009.damaged-1
touch run/checkpoints/step-000000005/manifest.json run/checkpoints/step-000000009.damaged-1/manifest.json
job --scheduler exit
expect "LSF reads the code" 75 1
grep -q '^step-000000005 1$' run/job.starts || {
    printf 'a damaged checkpoint counts: %s\n' "$(<run/job.starts)"
    failures=$((failures + 1))
}

plan 75
job --scheduler chain --again 'echo next >>calls'
expect "chain" 75 1
expect_call "chain" "next"

plan 0
timeout 20 bash "$run_job" --run-dir run -- launch -np 1 coordinator : -np 2 worker >log 2>&1
expect_call "each program of an MPMD line gets the overrides" "-np 1 coordinator run.dir=run : -np 2 worker run.dir=run"

plan wait:75+
signalled USR1 --scheduler none
expect "a signal ends the local loop" 75 1

timeout 20 bash "$run_job" -- launch >log 2>&1
code=$?
[[ "$code" -eq 64 ]] || {
    printf 'no run folder: exit code %d instead of 64\n' "$code"
    failures=$((failures + 1))
}

printf '%d failures\n' "$failures"
[[ "$failures" -eq 0 ]]
