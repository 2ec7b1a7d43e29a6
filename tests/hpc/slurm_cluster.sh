# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# A Slurm of one node on this machine, without systemd, cgroups or a database; to be sourced. Needs root and Debian's
# slurm-wlm and munge. Two partitions: low (default, preempted by requeueing) and high.
#
#   slurm_missing          prints what is missing for it; nothing: all is there
#   slurm_up FOLDER CPUS   starts it and exports what sbatch and srun need; returns 1 with the logs on stderr
#   slurm_down FOLDER      cancels all jobs and ends, by process id, what slurm_up started

slurm_missing() {
    local program
    [[ $(id -u) -eq 0 ]] || printf 'root; '
    for program in slurmctld slurmd munged sbatch srun scontrol; do
        PATH=$PATH:/usr/sbin command -v "$program" >/dev/null || printf '%s; ' "$program"
    done
}

write_slurm_conf() {
    local folder=$1 cpus=$2 host=$3 port=$4
    cat >"$folder/slurm.conf" <<CONF
ClusterName=gidd-test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
TmpFS=$folder/tmp
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
MinJobAge=300
KillWait=5
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
JobRequeue=1
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=500 State=UNKNOWN
PartitionName=low Nodes=$host Default=YES MaxTime=60 PriorityTier=1 State=UP
PartitionName=high Nodes=$host MaxTime=60 PriorityTier=10 PreemptMode=OFF State=UP
CONF
}

start_munge() {
    local folder=$1/munge
    mkdir -m 711 "$folder"
    dd if=/dev/urandom of="$folder/key" bs=128 count=1 status=none
    chmod 600 "$folder/key"
    PATH=$PATH:/usr/sbin munged --force --key-file="$folder/key" --socket="$folder/socket" --pid-file="$folder/pid" \
        --log-file="$folder/log" --seed-file="$folder/seed" 2>"$folder/err"
}

slurm_up() {
    local folder=$1 cpus=$2 host port
    host=$(hostname -s)
    port=$((20000 + RANDOM % 20000))
    mkdir -p "$folder/state" "$folder/spool" "$folder/tmp"
    start_munge "$folder" || return 1
    write_slurm_conf "$folder" "$cpus" "$host" "$port"
    export SLURM_CONF=$folder/slurm.conf
    # one machine: nothing needs to leave it
    export OMPI_MCA_btl_tcp_if_include=lo OMPI_MCA_oob_tcp_if_include=lo PMIX_MCA_ptl_tcp_if_include=lo
    PATH=$PATH:/usr/sbin slurmctld -f "$SLURM_CONF" && PATH=$PATH:/usr/sbin slurmd -f "$SLURM_CONF"
    for _ in $(seq 200); do
        [[ $(sinfo -h -p low -t idle -o %D 2>/dev/null) != 1 ]] || return 0
        sleep 0.1
    done
    tail -n 20 "$folder"/*.log >&2
    return 1
}

slurm_down() {
    local folder=$1 pid
    local -a pids=()
    scancel -u root 2>/dev/null
    sleep 0.5
    mapfile -t pids < <(cat "$folder/slurmd.pid" "$folder/slurmctld.pid" "$folder/munge/pid" 2>/dev/null)
    for pid in $(pgrep -x slurmstepd); do # of this cluster: their configuration lies in our folder
        ! { tr '\0' '\n' <"/proc/$pid/environ"; } 2>/dev/null | grep -qF "$folder/" || pids+=("$pid")
    done
    kill "${pids[@]}" 2>/dev/null
    for _ in $(seq 30); do
        kill -0 "${pids[@]}" 2>/dev/null || return 0
        sleep 0.1
    done
    kill -KILL "${pids[@]}" 2>/dev/null
    return 0
}
