#!/usr/bin/env bash
# A Slurm of one node, this machine, for the tests: `slurm.sh install`, `slurm.sh start DIR`, `slurm.sh stop DIR`.
# It is private: own configuration, key, ports and state in DIR; the system's Slurm, if any, is not touched.
# Afterwards use it with SLURM_CONF=DIR/slurm.conf. Needs no systemd, no cgroups and no accounting database.
set -euo pipefail

install() {
    command -v slurmctld slurmd munged > /dev/null && return
    export DEBIAN_FRONTEND=noninteractive
    apt-get -o DPkg::Lock::Timeout=300 update -q
    apt-get -o DPkg::Lock::Timeout=300 install -y -q --no-install-recommends slurm-wlm munge
}

free_ports() {
    python3 - <<'PYTHON'
import socket
sockets = [socket.socket() for _ in range(2)]
for s in sockets:
    s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in sockets))
PYTHON
}

configure() {
    local dir=$1 node ctld slurmd
    node=$(hostname -s)
    read -r ctld slurmd < <(free_ports)
    mkdir -p "$dir"/{ctld,slurmd,munge}
    chmod 0700 "$dir/munge"
    head -c 1024 /dev/urandom > "$dir/munge/key"
    chmod 0400 "$dir/munge/key"
    cat > "$dir/slurm.conf" <<CONF
ClusterName=flowmbpo
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=$ctld
SlurmdPort=$slurmd
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket
CredType=cred/munge
StateSaveLocation=$dir/ctld
SlurmdSpoolDir=$dir/slurmd
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
KillWait=15
GresTypes=gpu
NodeName=$node NodeAddr=127.0.0.1 CPUs=${SLURM_TEST_CPUS:-4} RealMemory=${SLURM_TEST_MEMORY_MB:-64000} Gres=gpu:L40S:3,gpu:H100:1 State=UNKNOWN
MaxArraySize=4
EnforcePartLimits=ALL
PartitionName=main Nodes=$node Default=YES MaxTime=INFINITE State=UP
PartitionName=narrow Nodes=$node MaxCPUsPerNode=1 MaxTime=INFINITE State=UP
PartitionName=short Nodes=$node MaxTime=0:20:00 State=UP
CONF
    touch "$dir"/gpu{0..3} # stand for the device files of four cards; no job of the tests opens one
    printf 'Name=gpu Type=%s File=%s\n' L40S "$dir/gpu[0-2]" H100 "$dir/gpu3" > "$dir/gres.conf"
}

start() {
    local dir=$1
    [ -e "$dir/slurm.conf" ] || configure "$dir"
    export SLURM_CONF=$dir/slurm.conf
    # munged wants its socket in a place that everybody may enter
    chmod 0755 "$dir/munge" "$dir"
    munged --force --socket="$dir/munge/socket" --key-file="$dir/munge/key" --pid-file="$dir/munge/pid" \
        --log-file="$dir/munge/log" --seed-file="$dir/munge/seed"
    slurmctld
    slurmd
    for _ in $(seq 60); do
        if sinfo --noheader --format=%T 2> /dev/null | grep -q '^idle$'; then
            return
        fi
        sleep 0.5
    done
    echo "the node did not come up; see $dir/slurmctld.log and $dir/slurmd.log" >&2
    tail -n 20 "$dir"/slurmctld.log "$dir"/slurmd.log >&2
    return 1
}

stop() {
    local dir=$1 file
    for file in "$dir/slurmd.pid" "$dir/slurmctld.pid" "$dir/munge/pid"; do
        if [ -s "$file" ]; then
            kill "$(cat "$file")" 2> /dev/null || true
        fi
    done
}

case "${1:-}" in
    install) install ;;
    start) start "$(realpath -m "${2:?folder}")" ;;
    stop) stop "$(realpath -m "${2:?folder}")" ;;
    *) echo "usage: $0 install | start DIR | stop DIR" >&2; exit 2 ;;
esac
