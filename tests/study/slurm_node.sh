#!/bin/sh
# A private Slurm of one node on the loopback address, for tests; needs root and the packages
# slurm-wlm and munge. `slurm_node.sh FOLDER` keeps all its files in FOLDER, writes
# FOLDER/environment (to be read with `. FOLDER/environment`) once jobs can be submitted, and ends
# its daemons when it is told to stop.
set -eu
folder=$(realpath "$1")
cpus=${2:-2}
PATH=$PATH:/usr/sbin:/usr/bin
export PATH SLURM_CONF="$folder/slurm.conf"
host=$(hostname -s)
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
mkdir -p "$folder/state" "$folder/spool"
chmod 755 "$folder"
head -c 128 /dev/urandom > "$folder/munge.key"
chmod 400 "$folder/munge.key"
cat > "$SLURM_CONF" <<CONF
ClusterName=private
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1
ReturnToService=2
KillWait=5
MpiDefault=none
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF

ended() {
    # Jobs first: what waits for a controller that is gone would wait for ever.
    scancel --me 2> /dev/null || true
    for _ in $(seq 40); do
        [ -z "$(squeue --noheader --me 2> /dev/null)" ] && break
        sleep 0.5
    done
    # shellcheck disable=SC2086
    kill $daemons 2> /dev/null || true
    sleep 10
    # shellcheck disable=SC2086
    kill -9 $daemons 2> /dev/null || true
}
daemons=
trap ended EXIT
trap 'exit 0' TERM INT

munged --foreground --force --socket="$folder/munge.socket" --key-file="$folder/munge.key" \
    --pid-file="$folder/munge.pid" --log-file="$folder/munge.log" \
    --seed-file="$folder/munge.seed" > "$folder/munged.out" 2>&1 &
daemons=$!
sleep 1
slurmctld -D > "$folder/slurmctld.out" 2>&1 &
daemons="$! $daemons"
sleep 1
slurmd -D > "$folder/slurmd.out" 2>&1 &
daemons="$! $daemons"
for _ in $(seq 60); do
    sinfo --noheader --format=%T 2> /dev/null | grep -q idle && break
    sleep 0.5
done
cat > "$folder/environment.part" <<ENVIRONMENT
export SLURM_CONF=$SLURM_CONF
export PATH=\$PATH:/usr/sbin:/usr/bin
ENVIRONMENT
mv "$folder/environment.part" "$folder/environment"
wait
