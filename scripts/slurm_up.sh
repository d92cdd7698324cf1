#!/usr/bin/env bash
# A SLURM cluster of this one machine, as root, for the tests and for trying things out (Debian's slurm-wlm packages):
#   bash scripts/slurm_up.sh [FOLDER]; export SLURM_CONF=FOLDER/slurm.conf   (FOLDER: /tmp/dl-lab-slurm)
# No systemd, no cgroups, no accounting. SLURM_PORT sets the first of its two ports. End it with slurm_down.sh.
set -euo pipefail
folder=${1:-/tmp/dl-lab-slurm} port=${SLURM_PORT:-6817} host=$(hostname -s)
for command in slurmctld slurmd munged sbatch; do
    command -v "$command" >/dev/null || {
        echo "SLURM is not installed: apt-get install --no-install-recommends slurmctld slurmd slurm-client munge" >&2
        exit 3
    }
done
[[ $(id -u) == 0 ]] || { echo "This cluster's daemons run as root." >&2; exit 3; }
mkdir -p "$folder"/{state,spool,log}
install -d -o munge -g munge -m 0755 /run/munge
authenticates() { munge -n 2>/dev/null | unmunge >/dev/null 2>&1; }
(
    # Clusters that come up at the same time share one key and one munged.
    flock 9
    if [[ ! -s /etc/munge/munge.key ]]; then
        dd if=/dev/urandom of=/etc/munge/munge.key bs=1 count=1024 status=none
        chown munge: /etc/munge/munge.key && chmod 400 /etc/munge/munge.key
    fi
    authenticates && exit
    rm -f /run/munge/munge.socket.2*
    setpriv --reuid=munge --regid=munge --clear-groups /usr/sbin/munged 9>&-
    for _ in $(seq 20); do authenticates && break; sleep 0.25; done
) 9>/run/munge/dl-lab.lock
unset OMP_NUM_THREADS OMP_THREAD_LIMIT  # nproc would count those
memory=$(slurmd -C | sed -n 's/.*RealMemory=\([0-9]*\).*/\1/p')
cat >"$folder/slurm.conf" <<CONF
ClusterName=dllab
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=512
SchedulerParameters=sched_interval=1,bf_interval=2,sched_min_interval=100000
MpiDefault=none
ReturnToService=2
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
KillWait=10
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$memory State=UNKNOWN
PartitionName=debug Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF=$folder/slurm.conf
slurmctld -c
slurmd
for _ in $(seq 40); do
    if sinfo -h -o %T 2>/dev/null | grep -q idle; then
        echo "SLURM is up: export SLURM_CONF=$SLURM_CONF"
        exit 0
    fi
    sleep 0.25
done
echo "SLURM did not come up: see $folder/log" >&2
exit 1
