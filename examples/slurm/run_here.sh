#!/usr/bin/env bash
# Starts a Slurm of one node on this machine, runs batch.sbatch in it as an array of 8, and compares what comes out with one
# run of the local engine.  As root, with Debian's slurm-wlm and munge, and fastgpt-c on PATH.  Everything is in a temporary
# folder, and ended in the end.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT

node=$(hostname -s)
cat >"$work/slurm.conf" <<END
ClusterName=here
SlurmctldHost=$node
SlurmctldAddr=127.0.0.1
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$work/munge/socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmctldPort=16817
SlurmdPort=16818
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd.log
ReturnToService=2
MpiDefault=none
NodeName=$node NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=4000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
export SLURM_CONF=$work/slurm.conf
mkdir -m 755 "$work/state" "$work/spool" "$work/munge"
chmod 755 "$work"

head -c 1024 /dev/urandom >"$work/munge/key"
chmod 600 "$work/munge/key"
munged --foreground --force --key-file="$work/munge/key" --socket="$work/munge/socket" --pid-file="$work/munge/pid" \
    --seed-file="$work/munge/seed" --log-file="$work/munge/log" &>"$work/munged.out" &
pids+=($!)
for _ in $(seq 100); do [ -S "$work/munge/socket" ] && break; sleep 0.1; done
slurmctld -D &>"$work/slurmctld.out" &
pids+=($!)
slurmd -D &>"$work/slurmd.out" &
pids+=($!)
for _ in $(seq 300); do sinfo -h -o %t 2>/dev/null | grep -q idle && break; sleep 0.2; done
sinfo

cd "$work"
for i in $(seq 200); do echo "{\"prompt\": \"Once upon a time $i\", \"max_tokens\": 8}"; done >in.jsonl
export SOURCE_DATE_EPOCH=1700000000 OUT=$work/OUT
fastgpt-c batch in.jsonl "$OUT/" --shard-bytes 500 --deterministic
sbatch --wait --export=ALL --array=0-7 --mem=0 --cpus-per-task=1 --output="$work/task-%a.txt" "$here/batch.sbatch"
cat "$work"/task-*.txt
fastgpt-c batch "$OUT"
fastgpt-c batch "$OUT" --merge merged.jsonl
fastgpt-c batch in.jsonl local.jsonl --deterministic
cmp <(sort merged.jsonl) <(sort local.jsonl)
echo "the array wrote what one run writes: $(wc -l <merged.jsonl) records"
